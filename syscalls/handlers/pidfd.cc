// pidfd_open(2), pidfd_send_signal(2), pidfd_getfd(2).

#include "sentry/kernel/pidfd.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include <memory>
#include <utility>

#include "sentry/fs/proc/proc.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/trace_access.h"
#include "sentry/signal/signal_info.h"
#include "syscalls/handlers/process.h"
#include "syscalls/handlers/signal.h"

namespace syscalls {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::FileRef;
using sentry::Task;
using sentry::TaskRef;

constexpr uint32_t kPidfdNonblock = O_NONBLOCK;
constexpr uint32_t kPidfdThread = O_EXCL;
// <linux/pidfd.h> of 6.9.
constexpr uint32_t kSignalThread = 1;
constexpr uint32_t kSignalThreadGroup = 2;
constexpr uint32_t kSignalProcessGroup = 4;

}  // namespace

Result<int32_t> PidfdOpen(Task& task, int32_t pid, uint32_t flags) {
  if ((flags & ~(kPidfdNonblock | kPidfdThread)) != 0) return Errno(EINVAL);
  if (pid <= 0) return Errno(EINVAL);
  const TaskRef found = sentry::FindTaskFor(task, pid);
  if (found == nullptr) return Errno(ESRCH);
  const bool thread = (flags & kPidfdThread) != 0;
  if (!thread && !found->is_leader()) return Errno(EINVAL);
  auto file = std::make_shared<sentry::PidFile>(task, found->group_ref(), thread ? found : nullptr,
                                                flags & kPidfdNonblock);
  return task.InstallFile(std::move(file), true);
}

Result<void> PidfdSendSignal(Task& task, int32_t pidfd, int32_t signal, UserAddr info,
                             uint32_t flags) {
  if ((flags & ~(kSignalThread | kSignalThreadGroup | kSignalProcessGroup)) != 0)
    return Errno(EINVAL);
  if ((flags & (flags - 1)) != 0) return Errno(EINVAL);
  // A directory of /proc is a pidfd here, since before there were others.
  const FileRef opened = TRY(task.fds().Get(pidfd));
  if (const TaskRef named = sentry::TaskOfProcDirectory(*opened); named != nullptr) {
    return SendFromPidfd(task, named->group(), flags == kSignalThread ? named : nullptr,
                         flags == kSignalProcessGroup, signal, info);
  }
  const std::shared_ptr<sentry::PidFile> file = TRY(sentry::GetPidFile(task, pidfd));
  if (file->pid() < 0) return Errno(ESRCH);
  const bool to_thread = flags == kSignalThread || (flags == 0 && file->thread() != nullptr);
  const TaskRef thread =
      to_thread ? (file->thread() != nullptr ? file->thread() : file->group()->leader()) : nullptr;
  return SendFromPidfd(task, *file->group(), thread, flags == kSignalProcessGroup, signal, info);
}

Result<int32_t> PidfdGetfd(Task& task, int32_t pidfd, int32_t fd, uint32_t flags) {
  if (flags != 0) return Errno(EINVAL);
  const std::shared_ptr<sentry::PidFile> file = TRY(sentry::GetPidFile(task, pidfd));
  const TaskRef target = file->thread() != nullptr ? file->thread() : file->group()->AnyLiveTask();
  if (target == nullptr) return Errno(ESRCH);
  if (!MayTrace(task.own_credentials(), &task.group(), *target, sentry::TraceIds::kReal))
    return Errno(EPERM);
  const std::shared_ptr<sentry::FdTable> fds = target->fds_ref();
  if (fds == nullptr) return Errno(ESRCH);
  return task.InstallFile(TRY(fds->Get(fd)), true);
}

}  // namespace syscalls
