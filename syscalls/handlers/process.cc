#include "syscalls/handlers/process.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <linux/wait.h>
#include <signal.h>

#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sentry/fs/nsfs/nsfs.h"
#include "sentry/kernel/child_wait.h"
#include "sentry/kernel/job_control.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespace_change.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/task_clone.h"
#include "sentry/kernel/trace_access.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/signal/signal_info.h"
#include "syscalls/abi/rusage.h"

namespace syscalls {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserOut;
using sentry::CloneArguments;
using sentry::Task;
using sentry::TaskRef;
using sentry::ThreadGroup;
using sentry::WaitRequest;
using sentry::WaitResult;

constexpr uint64_t kSignalMask = 0xff;  // CSIGNAL
constexpr size_t kCloneArgsBytesMin = 64;
constexpr size_t kCloneArgsBytesMax = 4096;

// struct clone_args, <linux/sched.h>.
struct CloneArgs {
  uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
      set_tid_size, cgroup;
};
static_assert(sizeof(CloneArgs) == 88);

Result<std::shared_ptr<ThreadGroup>> GroupOf(Task& task, int32_t pid) {
  if (pid == 0) return task.group_ref();
  // As Linux, which takes any thread's id here.
  const TaskRef found = sentry::FindTaskFor(task, pid);
  if (found == nullptr) return Errno(ESRCH);
  return found->group_ref();
}

// For wait(2): -1 is nobody's id.
int32_t GlobalOrNone(Task& task, int32_t id) {
  const int32_t global = sentry::ToGlobal(task, id);
  return global == 0 ? -1 : global;
}

}  // namespace

Result<int32_t> GetPid(Task& task) { return sentry::SeenBy(task, task.group().id()); }
Result<int32_t> GetTid(Task& task) { return sentry::SeenBy(task, task.tid()); }
Result<int32_t> GetPpid(Task& task) { return sentry::SeenBy(task, task.group().parent_id()); }
Result<int32_t> GetPgrp(Task& task) {
  return sentry::SeenBy(task, task.group().process_group_id());
}
Result<int32_t> GetPgid(Task& task, int32_t pid) {
  return sentry::SeenBy(task, TRY(GroupOf(task, pid))->process_group_id());
}
Result<int32_t> GetSid(Task& task, int32_t pid) {
  return sentry::SeenBy(task, TRY(GroupOf(task, pid))->session_id());
}
Result<void> SetPgid(Task& task, int32_t pid, int32_t pgid) {
  // A number that means nothing here means nothing anywhere.
  const auto global = [&](int32_t id) {
    const int32_t found = sentry::ToGlobal(task, id);
    return id > 0 && found == 0 ? INT32_MAX : found;
  };
  return sentry::JobControl::SetProcessGroup(task, global(pid), global(pgid));
}
Result<int32_t> SetSid(Task& task) {
  return sentry::SeenBy(task, TRY(sentry::JobControl::SetSession(task)));
}

Result<int32_t> Fork(Task& task) {
  CloneArguments arguments;
  arguments.exit_signal = SIGCHLD;
  return sentry::TaskClone::Clone(task, arguments);
}

Result<int32_t> Vfork(Task& task) {
  CloneArguments arguments;
  arguments.flags = CLONE_VFORK | CLONE_VM;
  arguments.exit_signal = SIGCHLD;
  return sentry::TaskClone::Clone(task, arguments);
}

Result<int32_t> Clone(Task& task, uint64_t flags, uint64_t stack, uint64_t parent_tid,
                      uint64_t child_tid, uint64_t tls) {
  CloneArguments arguments;
  // Only the low half counts: clone3 alone has the flags above it.
  arguments.flags = flags & 0xffffffff & ~kSignalMask;
  arguments.exit_signal = static_cast<int32_t>(flags & kSignalMask);
  arguments.stack = stack;
  arguments.parent_tid = parent_tid;
  arguments.pidfd = parent_tid;
  arguments.child_tid = child_tid;
  arguments.tls = tls;
  return sentry::TaskClone::Clone(task, arguments);
}

Result<int32_t> Clone3(Task& task, UserAddr address, uint64_t size) {
  if (size > kCloneArgsBytesMax) return Errno(E2BIG);
  if (size < kCloneArgsBytesMin) return Errno(EINVAL);
  std::array<std::byte, kCloneArgsBytesMax> bytes{};
  TRY(task.memory().CopyInExactly(address, std::span(bytes).first(size)));
  for (size_t i = sizeof(CloneArgs); i < size; ++i) {
    if (bytes[i] != std::byte{0}) return Errno(E2BIG);
  }
  CloneArgs args;
  std::memcpy(&args, bytes.data(), sizeof(args));
  const uint64_t known = 0xffffffff | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP;
  if ((args.flags & ~known) != 0 ||
      (args.flags & (CLONE_DETACHED | (kSignalMask & ~uint64_t{CLONE_NEWTIME}))) != 0) {
    return Errno(EINVAL);
  }
  if (args.exit_signal > static_cast<uint64_t>(sentry::kSignalMax)) return Errno(EINVAL);
  if ((args.flags & (CLONE_THREAD | CLONE_PARENT)) != 0 && args.exit_signal != 0)
    return Errno(EINVAL);
  if ((args.stack == 0) != (args.stack_size == 0)) return Errno(EINVAL);
  if (args.set_tid_size > 32 || (args.set_tid == 0) != (args.set_tid_size == 0))
    return Errno(EINVAL);
  if ((args.flags & CLONE_INTO_CGROUP) != 0)
    return Errno(EBADF);  // No descriptor of ours is a cgroup's.
  CloneArguments arguments;
  arguments.flags = args.flags;
  arguments.exit_signal = static_cast<int32_t>(args.exit_signal);
  arguments.pidfd = args.pidfd;
  arguments.child_tid = args.child_tid;
  arguments.parent_tid = args.parent_tid;
  arguments.stack = args.stack + args.stack_size;
  arguments.tls = args.tls;
  if (args.set_tid_size != 0) {
    arguments.set_tid =
        TRY(task.memory().CopyInArray<int32_t>(UserAddr(args.set_tid), args.set_tid_size));
    for (const int32_t wanted : arguments.set_tid) {
      if (wanted <= 0) return Errno(EINVAL);
    }
    const sentry::Credentials& own = task.own_credentials();
    const sentry::PidViewRef& view = task.group().pid_view();
    const sentry::UserNamespaceRef owner = view == nullptr ? nullptr : view->owner();
    if (!own.HasCapabilityIn(owner, CAP_SYS_ADMIN) &&
        !own.HasCapabilityIn(owner, CAP_CHECKPOINT_RESTORE))
      return Errno(EPERM);
  }
  return sentry::TaskClone::Clone(task, arguments);
}

Result<void> Unshare(Task& task, uint64_t flags) {
  constexpr uint64_t kNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                   CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWTIME;
  constexpr uint64_t kKnown = CLONE_THREAD | CLONE_FS | CLONE_SIGHAND | CLONE_VM | CLONE_FILES |
                              CLONE_SYSVSEM | CLONE_NEWUSER | kNamespaces;
  if ((flags & ~kKnown) != 0) return Errno(EINVAL);
  // Only a process of one thread has its memory and handlers to itself.
  if ((flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM | CLONE_NEWUSER)) != 0 &&
      task.group().live_tasks() > 1) {
    return Errno(EINVAL);
  }
  if ((flags & (kNamespaces | CLONE_NEWUSER)) != 0) {
    TRY(sentry::NamespaceChange::Unshare(task, flags));
  } else if ((flags & CLONE_FS) != 0) {
    task.UnshareFs();
  }
  if ((flags & CLONE_FILES) != 0) task.UnshareFds();
  return {};
}

Result<void> Setns(Task& task, int32_t fd, int32_t type) {
  constexpr uint32_t kKinds = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                              CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWTIME | CLONE_NEWUSER;
  const auto kinds = static_cast<uint32_t>(type);
  const sentry::FileRef file = TRY(task.fds().Get(fd));
  if (std::shared_ptr<sentry::Namespace> space = sentry::NamespaceOf(*file)) {
    if (kinds != 0 && kinds != static_cast<uint64_t>(space->kind())) return Errno(EINVAL);
    return sentry::NamespaceChange::Enter(task, {std::move(space)});
  }
  const Result<std::shared_ptr<sentry::PidFile>> process = sentry::GetPidFile(task, fd);
  if (!process.ok() || kinds == 0 || (kinds & ~kKinds) != 0) return Errno(EINVAL);
  const TaskRef subject = process.value()->group()->AnyLiveTask();
  if (subject == nullptr) return Errno(ESRCH);
  if (!MayTrace(task.own_credentials(), &task.group(), *subject, sentry::TraceIds::kReal))
    return Errno(EPERM);
  return sentry::NamespaceChange::Enter(task, TRY(sentry::NamespaceChange::Of(*subject, kinds)));
}

Result<void> Exit(Task& task, int32_t status) {
  task.RequestExit((status & 0xff) << 8);
  return {};
}

Result<void> ExitGroup(Task& task, int32_t status) {
  task.group().StartExit((status & 0xff) << 8);
  task.RequestExit((status & 0xff) << 8);
  return {};
}

Result<int32_t> Wait4(Task& task, int32_t pid, UserAddr status, int32_t options, UserAddr usage) {
  constexpr uint32_t kKnown = WNOHANG | WUNTRACED | WCONTINUED |
                              static_cast<uint32_t>(__WNOTHREAD) | static_cast<uint32_t>(__WCLONE) |
                              static_cast<uint32_t>(__WALL);
  if ((static_cast<uint32_t>(options) & ~kKnown) != 0) return Errno(EINVAL);
  if (pid == INT32_MIN) return Errno(ESRCH);
  WaitRequest request;
  request.options = static_cast<uint32_t>(options) | WEXITED;
  if (pid > 0) {
    request.which = WaitRequest::Which::kProcess;
    request.id = GlobalOrNone(task, pid);
  } else if (pid != -1) {
    request.which = WaitRequest::Which::kProcessGroup;
    request.id = pid == 0 ? task.group().process_group_id() : GlobalOrNone(task, -pid);
  }
  const WaitResult result = TRY(sentry::ChildWait::Wait(task, request));
  if (result.pid == 0) return 0;
  if (!usage.is_null()) TRY(task.CopyOut(UserOut<abi::Rusage>(usage), ToAbi(result.usage)));
  if (!status.is_null()) TRY(task.CopyOut(UserOut<int32_t>(status), result.status));
  return result.pid;
}

Result<int32_t> WaitId(Task& task, int32_t which, int32_t id, UserAddr info, int32_t options,
                       UserAddr usage) {
  constexpr uint32_t kKnown = WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED |
                              static_cast<uint32_t>(__WNOTHREAD) | static_cast<uint32_t>(__WCLONE) |
                              static_cast<uint32_t>(__WALL);
  const auto bits = static_cast<uint32_t>(options);
  if ((bits & ~kKnown) != 0 || (bits & (WEXITED | WSTOPPED | WCONTINUED)) == 0)
    return Errno(EINVAL);
  WaitRequest request;
  request.options = bits;
  switch (which) {
    case P_ALL:
      break;
    case P_PID:
      if (id <= 0) return Errno(EINVAL);
      request.which = WaitRequest::Which::kProcess;
      request.id = GlobalOrNone(task, id);
      break;
    case P_PGID:
      if (id < 0) return Errno(EINVAL);
      request.which = WaitRequest::Which::kProcessGroup;
      request.id = id == 0 ? task.group().process_group_id() : GlobalOrNone(task, id);
      break;
    case P_PIDFD: {
      if (id < 0) return Errno(EINVAL);
      const auto file = TRY(sentry::GetPidFile(task, id));
      request.which = WaitRequest::Which::kProcess;
      request.id = file->group()->id();
      request.nonblocking_fd = file->nonblocking();
      break;
    }
    default:
      return Errno(EINVAL);
  }
  const WaitResult result = TRY(sentry::ChildWait::Wait(task, request));
  if (result.pid != 0 && !usage.is_null())
    TRY(task.CopyOut(UserOut<abi::Rusage>(usage), ToAbi(result.usage)));
  if (info.is_null()) return 0;
  // Of siginfo_t only these: nothing beyond si_status is touched, as on Linux.
  struct Head {
    int32_t signal, error, code, pad, pid;
    uint32_t uid;
    int32_t status;
  } head{};
  if (result.pid != 0) {
    head = {.signal = SIGCHLD,
            .error = 0,
            .code = result.code,
            .pad = 0,
            .pid = result.pid,
            .uid = sentry::UidSeenFrom(task.own_credentials().user_namespace, result.uid),
            .status = result.code_status};
  }
  TRY(task.CopyOut(UserOut<Head>(info), head));
  return 0;
}

Result<int32_t> SetTidAddress(Task& task, uint64_t address) {
  task.set_clear_child_tid(address);
  return sentry::SeenBy(task, task.tid());
}

Result<uint32_t> Personality(Task& task, uint32_t persona) {
  std::atomic<uint32_t>& current = task.group().personality();
  if (persona == 0xffffffff) return current.load();
  return current.exchange(persona);
}

Result<uint64_t> ArchPrctl(Task& task, int32_t code, uint64_t address) {
  platform::Registers& registers = task.registers();
  const bool setting = code == ARCH_SET_FS || code == ARCH_SET_GS;
  if (setting && address >= task.kernel().platform().user_address_max()) return Errno(EPERM);
  switch (code) {
    case ARCH_SET_FS:
      registers.fs_base = address;
      return uint64_t{0};
    case ARCH_SET_GS:
      registers.gs_base = address;
      return uint64_t{0};
    case ARCH_GET_FS:
      TRY(task.CopyOut(UserOut<uint64_t>(UserAddr(address)), registers.fs_base));
      return uint64_t{0};
    case ARCH_GET_GS:
      TRY(task.CopyOut(UserOut<uint64_t>(UserAddr(address)), registers.gs_base));
      return uint64_t{0};
    case ARCH_GET_CPUID:
      return uint64_t{1};  // It works.
    case ARCH_SET_CPUID:
      return Errno(ENODEV);  // As on a processor that cannot fault on CPUID.
    default:
      return Errno(EINVAL);  // Shadow stacks and AMX permissions are not offered.
  }
}

}  // namespace syscalls
