#include "syscalls/handlers/signal.h"

#include <linux/capability.h>
#include <signal.h>

#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/signal/signal_delivery.h"
#include "sentry/signal/signal_frame.h"
#include "sentry/signal/signal_info.h"
#include "syscalls/abi/time.h"

namespace syscalls {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::IsValidSignal;
using sentry::SignalInfo;
using sentry::SignalSet;
using sentry::Task;
using sentry::TaskRef;
using sentry::ThreadGroup;

constexpr int64_t kNsPerSecond = 1'000'000'000;

// struct kernel_sigaction.
struct ActionData {
  uint64_t handler, flags, restorer, mask;
};
// stack_t
struct StackData {
  uint64_t address;
  int32_t flags;
  uint32_t pad;
  uint64_t size;
};

Result<void> CheckSetBytes(uint64_t set_bytes) {
  if (set_bytes != sizeof(SignalSet)) return Errno(EINVAL);
  return {};
}

// kill_ok_by_cred, check_kill_permission (kernel/signal.c).
Result<void> CheckPermission(Task& task, ThreadGroup& target, int32_t signal) {
  if (&target == &task.group()) return {};
  const sentry::Credentials& own = task.own_credentials();
  const TaskRef leader = target.leader();
  if (leader == nullptr) return Errno(ESRCH);
  const sentry::CredentialsRef other = leader->credentials();
  const bool same = own.euid == other->suid || own.euid == other->uid || own.uid == other->suid ||
                    own.uid == other->uid;
  if (same || own.HasCapabilityIn(other->user_namespace, CAP_KILL)) return {};
  if (signal == SIGCONT && target.session_id() == task.group().session_id()) return {};
  return Errno(EPERM);
}

SignalInfo FromCaller(Task& task, int32_t signal, int32_t code) {
  SignalInfo info = SignalInfo::FromUser(signal, task.group().id(), task.own_credentials().uid);
  info.code = code;
  return info;
}

// Signal 0 only asks.
Result<void> SendToGroup(Task& task, ThreadGroup& group, const SignalInfo& info, int32_t signal) {
  TRY(CheckPermission(task, group, signal));
  if (signal == 0) return {};
  return group.SendSignal(info);
}

Result<void> SendToMany(Task& task, const std::vector<std::shared_ptr<ThreadGroup>>& groups,
                        int32_t signal) {
  if (groups.empty()) return Errno(ESRCH);
  const SignalInfo info = FromCaller(task, signal, SI_USER);
  Result<void> result = Errno(EPERM);
  bool sent = false;
  for (const std::shared_ptr<ThreadGroup>& group : groups) {
    const Result<void> one = SendToGroup(task, *group, info, signal);
    if (one.ok()) sent = true;
    if (!one.ok() && !(one.error() == EPERM)) result = one;
  }
  if (sent) return {};
  return result;
}

Result<void> SendToThread(Task& task, int32_t tgid, int32_t tid, const SignalInfo& info,
                          int32_t signal) {
  const TaskRef target = sentry::FindTaskFor(task, tid);
  if (target == nullptr || (tgid > 0 && target->group().id() != sentry::ToGlobal(task, tgid)))
    return Errno(ESRCH);
  TRY(CheckPermission(task, target->group(), signal));
  if (signal == 0 || target->HasExited()) return {};
  return target->SendSignal(info);
}

Result<SignalInfo> CopyInInfo(Task& task, UserAddr address) {
  sentry::SignalInfoBytes bytes;
  TRY(task.memory().CopyInExactly(address, bytes));
  SignalInfo info = sentry::DecodeSignalInfo(bytes);
  info.pid = sentry::ToGlobal(task, info.pid);
  return info;
}

// Nobody may pretend to be the kernel or kill(2) to another process.
Result<void> CheckForgery(Task& task, const SignalInfo& info, int32_t pid) {
  if ((info.code >= 0 || info.code == SI_TKILL) && pid != sentry::SeenBy(task, task.group().id()))
    return Errno(EPERM);
  return {};
}

}  // namespace

Result<void> RtSigaction(Task& task, int32_t signal, UserAddr action, UserAddr old_action,
                         uint64_t set_bytes) {
  constexpr uint64_t kKnownFlags = SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK |
                                   SA_RESTART | SA_NODEFER | SA_RESETHAND |
                                   sentry::kActionRestorer | 0x00000800 /* SA_EXPOSE_TAGBITS */;
  TRY(CheckSetBytes(set_bytes));
  sentry::SignalAction old;
  const bool valid = IsValidSignal(signal);
  if (!action.is_null()) {
    const ActionData data = TRY(task.CopyIn(UserIn<ActionData>(action)));
    if (!valid || ((sentry::SignalBit(signal) & sentry::kUnblockable) != 0)) return Errno(EINVAL);
    // Bits that nobody knows read back as zero (sigaction(2), "Dynamically probing for flag bit
    // support").
    const uint64_t flags = data.flags & (kKnownFlags & 0xffffffff);
    old = sentry::SignalDelivery::SetAction(
        task, signal, {data.handler, flags, data.restorer, data.mask & ~sentry::kUnblockable});
  } else {
    if (!valid) return Errno(EINVAL);
    old = task.group().handlers()->Get(signal);
  }
  if (old_action.is_null()) return {};
  return task.CopyOut(UserOut<ActionData>(old_action),
                      ActionData{old.handler, old.flags, old.restorer, old.mask});
}

Result<void> RtSigprocmask(Task& task, int32_t how, UserAddr set, UserAddr old_set,
                           uint64_t set_bytes) {
  TRY(CheckSetBytes(set_bytes));
  const SignalSet old = task.signal_mask();
  if (!set.is_null()) {
    const SignalSet given = TRY(task.CopyIn(UserIn<SignalSet>(set)));
    switch (how) {
      case SIG_BLOCK:
        task.set_signal_mask(old | given);
        break;
      case SIG_UNBLOCK:
        task.set_signal_mask(old & ~given);
        break;
      case SIG_SETMASK:
        task.set_signal_mask(given);
        break;
      default:
        return Errno(EINVAL);
    }
  }
  if (old_set.is_null()) return {};
  return task.CopyOut(UserOut<SignalSet>(old_set), old);
}

Result<void> RtSigreturn(Task& task) {
  task.KeepRegisters();
  if (!sentry::SignalFrame::Return(task).ok()) task.ForceSignal(SignalInfo::FromKernel(SIGSEGV));
  return {};
}

Result<void> RtSigpending(Task& task, UserAddr set, uint64_t set_bytes) {
  if (set_bytes > sizeof(SignalSet)) return Errno(EINVAL);
  const SignalSet pending = task.pending_signals() & task.signal_mask();
  return task.memory().CopyOutExactly(set, std::as_bytes(std::span(&pending, 1)).first(set_bytes));
}

Result<int32_t> RtSigtimedwait(Task& task, UserAddr set, UserAddr info, UserAddr timeout,
                               uint64_t set_bytes) {
  TRY(CheckSetBytes(set_bytes));
  const SignalSet wanted = TRY(task.CopyIn(UserIn<SignalSet>(set))) & ~sentry::kUnblockable;
  sentry::Deadline deadline;
  bool poll_only = false;
  if (!timeout.is_null()) {
    const abi::Timespec limit = TRY(task.CopyIn(UserIn<abi::Timespec>(timeout)));
    if (limit.tv_sec < 0 || limit.tv_nsec < 0 || limit.tv_nsec >= kNsPerSecond)
      return Errno(EINVAL);
    poll_only = limit.tv_sec == 0 && limit.tv_nsec == 0;
    const int64_t now = task.kernel().clock().MonotonicNs();
    const int64_t seconds_max = (std::numeric_limits<int64_t>::max() - now) / kNsPerSecond - 1;
    if (limit.tv_sec < seconds_max) {
      deadline = sentry::Deadline::At(now + limit.tv_sec * kNsPerSecond + limit.tv_nsec);
    }
  }
  std::optional<SignalInfo> taken = task.DequeueSignal(wanted);
  if (!taken && !poll_only) {
    task.ClearWake();
    task.SetAwaitedSignals(wanted);
    const Result<void> woken = task.Block(deadline);
    taken = task.DequeueSignal(wanted);
    task.SetAwaitedSignals(0);
    if (!taken && !woken.ok() && woken.error() == base::kRestartSys) return Errno(EINTR);
  }
  if (!taken) return Errno(EAGAIN);
  if (!info.is_null()) TRY(task.memory().CopyOutExactly(info, sentry::EncodeSignalInfo(*taken)));
  return taken->signal;
}

Result<void> RtSigsuspend(Task& task, UserAddr set, uint64_t set_bytes) {
  TRY(CheckSetBytes(set_bytes));
  const SignalSet mask = TRY(task.CopyIn(UserIn<SignalSet>(set)));
  task.SetTemporarySignalMask(mask);
  return Pause(task);
}

Result<void> Pause(Task& task) {
  task.ClearWake();
  while (task.Block(sentry::Deadline::Never()).ok()) {
  }
  return base::kRestartNoHand;
}

Result<void> Sigaltstack(Task& task, UserAddr stack, UserAddr old_stack) {
  const sentry::AlternateStack& now = task.alternate_stack();
  const StackData old{now.address, sentry::AlternateStackFlags(task), 0, now.size};
  if (!stack.is_null()) {
    const StackData data = TRY(task.CopyIn(UserIn<StackData>(stack)));
    TRY(sentry::SetAlternateStack(task, data.address, data.flags, data.size));
  }
  if (old_stack.is_null()) return {};
  return task.CopyOut(UserOut<StackData>(old_stack), old);
}

Result<void> Kill(Task& task, int32_t pid, int32_t signal) {
  if (signal != 0 && !IsValidSignal(signal)) return Errno(EINVAL);
  sentry::PidNamespace& pids = task.kernel().pids();
  if (pid > 0) {
    const TaskRef target = sentry::FindTaskFor(task, pid);
    if (target == nullptr) return Errno(ESRCH);
    return SendToGroup(task, target->group(), FromCaller(task, signal, SI_USER), signal);
  }
  if (pid == 0) return SendToMany(task, pids.Members(task.group().process_group_id()), signal);
  if (pid == INT32_MIN) return Errno(ESRCH);
  if (pid != -1) return SendToMany(task, pids.Members(sentry::ToGlobal(task, -pid)), signal);
  std::vector<std::shared_ptr<ThreadGroup>> all = pids.Groups();
  std::erase_if(all, [&](const auto& group) {
    // Everybody in the caller's PID namespace but its init.
    const int32_t seen = sentry::SeenBy(task, group->id());
    return seen <= 1 || group.get() == &task.group();
  });
  return SendToMany(task, all, signal);
}

Result<void> Tkill(Task& task, int32_t tid, int32_t signal) {
  if (tid <= 0) return Errno(EINVAL);
  if (signal != 0 && !IsValidSignal(signal)) return Errno(EINVAL);
  return SendToThread(task, 0, tid, FromCaller(task, signal, SI_TKILL), signal);
}

Result<void> Tgkill(Task& task, int32_t tgid, int32_t tid, int32_t signal) {
  if (tgid <= 0 || tid <= 0) return Errno(EINVAL);
  if (signal != 0 && !IsValidSignal(signal)) return Errno(EINVAL);
  return SendToThread(task, tgid, tid, FromCaller(task, signal, SI_TKILL), signal);
}

Result<void> RtSigqueueinfo(Task& task, int32_t pid, int32_t signal, UserAddr address) {
  SignalInfo info = TRY(CopyInInfo(task, address));
  info.signal = signal;
  TRY(CheckForgery(task, info, pid));
  if (signal != 0 && !IsValidSignal(signal)) return Errno(EINVAL);
  const TaskRef target = pid > 0 ? sentry::FindTaskFor(task, pid) : nullptr;
  if (target == nullptr) return Errno(ESRCH);
  return SendToGroup(task, target->group(), info, signal);
}

Result<void> RtTgsigqueueinfo(Task& task, int32_t tgid, int32_t tid, int32_t signal,
                              UserAddr address) {
  SignalInfo info = TRY(CopyInInfo(task, address));
  info.signal = signal;
  if (tgid <= 0 || tid <= 0) return Errno(EINVAL);
  TRY(CheckForgery(task, info, tid));
  if (signal != 0 && !IsValidSignal(signal)) return Errno(EINVAL);
  return SendToThread(task, tgid, tid, info, signal);
}

Result<uint64_t> RestartSyscall(Task& task) { return task.RunRestart(); }

Result<void> SendFromPidfd(Task& task, ThreadGroup& group, const TaskRef& thread,
                           bool to_process_group, int32_t signal, UserAddr address) {
  SignalInfo info = FromCaller(task, signal, thread != nullptr ? SI_TKILL : SI_USER);
  if (!address.is_null()) {
    info = TRY(CopyInInfo(task, address));
    if (info.signal != signal) return Errno(EINVAL);
    TRY(CheckForgery(task, info, sentry::SeenBy(task, group.id())));
  }
  if (signal != 0 && !IsValidSignal(signal)) return Errno(EINVAL);
  if (to_process_group) {
    return SendToMany(task, task.kernel().pids().Members(group.process_group_id()), signal);
  }
  if (group.IsZombie() && group.leader() == nullptr) return Errno(ESRCH);
  if (thread != nullptr)
    return SendToThread(task, 0, sentry::SeenBy(task, thread->tid()), info, signal);
  return SendToGroup(task, group, info, signal);
}

}  // namespace syscalls
