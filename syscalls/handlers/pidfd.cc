// pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2).

#include <fcntl.h>
#include <signal.h>
#include <linux/capability.h>
#include <sys/stat.h>

#include <charconv>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task.h"
#include "sentry/signal/signal_info.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file_system.h"
#include "syscalls/handlers/process.h"
#include "syscalls/handlers/signal.h"

namespace syscalls {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::Task;
using sentry::TaskRef;

constexpr uint32_t kPidfdNonblock = O_NONBLOCK;
constexpr uint32_t kPidfdThread = O_EXCL;
// <linux/pidfd.h> of 6.9.
constexpr uint32_t kSignalThread = 1;
constexpr uint32_t kSignalThreadGroup = 2;
constexpr uint32_t kSignalProcessGroup = 4;

// ptrace's rule (PTRACE_MODE_ATTACH_REALCREDS): same identity and no more capabilities, and dumpable.
bool MayAttach(Task& task, Task& target) {
  const sentry::Credentials& own = task.own_credentials();
  if (&task.group() == &target.group() || own.HasCapability(CAP_SYS_PTRACE)) return true;
  const sentry::CredentialsRef other = target.credentials();
  const bool same = own.uid == other->uid && own.uid == other->euid && own.uid == other->suid &&
                    own.gid == other->gid && own.gid == other->egid && own.gid == other->sgid;
  const std::shared_ptr<sentry::MemoryManager> memory = target.memory_ref();
  return same && (other->permitted & ~own.permitted) == 0 && memory != nullptr && memory->dumpable().load() == 1;
}

// pidfd_send_signal(2) takes a directory /proc/PID too.
Result<std::shared_ptr<sentry::ThreadGroup>> GroupOfProcDirectory(Task& task, int32_t fd) {
  const sentry::FileRef file = TRY(task.fds().GetForIo(fd));
  const std::shared_ptr<sentry::Dentry>& dentry = file->path().dentry;
  const std::shared_ptr<sentry::Inode> inode = file->inode();
  if (dentry == nullptr || inode == nullptr || inode->type() != S_IFDIR) return Errno(EBADF);
  if (inode->file_system().type_name() != "proc") return Errno(EBADF);
  const std::shared_ptr<sentry::Dentry> parent = dentry->parent();
  const std::string name = dentry->name();
  int32_t pid = 0;
  const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
  if (parent == nullptr || !parent->is_root() || parsed.ec != std::errc() || parsed.ptr != name.data() + name.size()) {
    return Errno(EBADF);
  }
  std::shared_ptr<sentry::ThreadGroup> group = task.kernel().pids().FindGroup(pid);
  if (group == nullptr) return Errno(ESRCH);
  return group;
}

}  // namespace

Result<int32_t> PidfdOpen(Task& task, int32_t pid, uint32_t flags) {
  if ((flags & ~(kPidfdNonblock | kPidfdThread)) != 0) return Errno(EINVAL);
  if (pid <= 0) return Errno(EINVAL);
  const TaskRef found = task.kernel().pids().FindTask(pid);
  if (found == nullptr) return Errno(ESRCH);
  const bool thread = (flags & kPidfdThread) != 0;
  if (!thread && !found->is_leader()) return Errno(EINVAL);
  auto file = std::make_shared<sentry::PidFile>(task, found->group_ref(), thread ? found : nullptr,
                                                flags & kPidfdNonblock);
  return task.InstallFile(std::move(file), true);
}

Result<void> PidfdSendSignal(Task& task, int32_t pidfd, int32_t signal, UserAddr info, uint32_t flags) {
  if ((flags & ~(kSignalThread | kSignalThreadGroup | kSignalProcessGroup)) != 0) return Errno(EINVAL);
  if ((flags & (flags - 1)) != 0) return Errno(EINVAL);
  const Result<std::shared_ptr<sentry::PidFile>> found = sentry::GetPidFile(task, pidfd);
  if (!found.ok()) {
    const std::shared_ptr<sentry::ThreadGroup> group = TRY(GroupOfProcDirectory(task, pidfd));
    return SendFromPidfd(task, *group, nullptr, flags == kSignalProcessGroup, signal, info);
  }
  const std::shared_ptr<sentry::PidFile>& file = found.value();
  if (file->pid() < 0) return Errno(ESRCH);
  const bool to_thread = flags == kSignalThread || (flags == 0 && file->thread() != nullptr);
  const TaskRef thread = to_thread ? (file->thread() != nullptr ? file->thread() : file->group()->leader()) : nullptr;
  return SendFromPidfd(task, *file->group(), thread, flags == kSignalProcessGroup, signal, info);
}

Result<int32_t> PidfdGetfd(Task& task, int32_t pidfd, int32_t fd, uint32_t flags) {
  if (flags != 0) return Errno(EINVAL);
  const std::shared_ptr<sentry::PidFile> file = TRY(sentry::GetPidFile(task, pidfd));
  const TaskRef target = file->thread() != nullptr ? file->thread() : file->group()->AnyLiveTask();
  if (target == nullptr) return Errno(ESRCH);
  if (!MayAttach(task, *target)) return Errno(EPERM);
  const std::shared_ptr<sentry::FdTable> fds = target->fds_ref();
  if (fds == nullptr) return Errno(ESRCH);
  return task.InstallFile(TRY(fds->Get(fd)), true);
}

}  // namespace syscalls
