// Taking a signal (Linux: get_signal, do_signal_stop in kernel/signal.c, 6.12): on the way to guest
// code the task carries out stops and default actions itself, and stops at the first signal that
// has a handler.

#include "sentry/signal/signal_delivery.h"

#include <sys/resource.h>

#include <utility>

#include "sentry/kernel/job_control.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/time/process_timers.h"

namespace sentry {
namespace {

constexpr int64_t kTickNs = 10'000'000;  // USER_HZ is 100.

}  // namespace

void SignalDelivery::RecalculateLocked(Task& task) {
  const ThreadGroup& group = *task.group_;
  const SignalSet deliverable =
      (task.pending_.set() | group.pending_.set()) & (~task.signal_mask() | task.awaited_signals_);
  const bool needed = deliverable != 0 || task.stop_requested_ || group.IsExiting() ||
                      group.notify_parent_ != 0 || task.kernel_.IsPaused() ||
                      (task.wake_state_.load(std::memory_order_relaxed) & Task::kKilled) != 0;
  if (needed) {
    task.wake_state_.fetch_or(Task::kInterrupt, std::memory_order_acq_rel);
  } else {
    task.wake_state_.fetch_and(~Task::kInterrupt, std::memory_order_acq_rel);
  }
}

// Begins a stop of the whole process, unless a SIGCONT came since the signal was taken.
void SignalDelivery::StartStopLocked(Task& task, int signal) {
  ThreadGroup& group = *task.group_;
  if (!task.stop_dequeued_ || group.IsExiting() || group.exec_task_ != nullptr) return;
  task.stop_dequeued_ = false;
  if (group.stop_signal_ != 0)
    return;  // A task that runs while the group is stopped does not exist without ptrace.
  group.stop_signal_ = signal;
  group.stop_remaining_ = 0;
  for (Task* member : group.signal_targets_) {
    member->stop_requested_ = true;
    ++group.stop_remaining_;
    if (member != &task) member->SetWakeBits(Task::kInterrupt);
  }
}

void SignalDelivery::TakePartInStop(Task& task) {
  ThreadGroup& group = *task.group_;
  bool last = false;
  {
    const absl::MutexLock lock(&group.signal_mu_);
    if (!task.stop_requested_) return;
    task.stop_requested_ = false;
    if (group.stop_signal_ == 0) return;
    task.stopped_.store(true, std::memory_order_release);
    if (!group.stopped_ && --group.stop_remaining_ == 0) {
      group.stopped_ = last = true;
      group.stop_report_ = group.stop_signal_;
      group.continue_report_ = false;
    }
  }
  if (last) NotifyParent(group, CLD_STOPPED);
  while (true) {
    // kInterrupt is set, since that is why we are here: only kWoken can change the word that is
    // slept on.
    task.wake_state_.fetch_and(~Task::kWoken, std::memory_order_acq_rel);
    const uint32_t state =
        task.wake_state_.fetch_or(Task::kAsleep, std::memory_order_acq_rel) | Task::kAsleep;
    if (!task.stopped_.load(std::memory_order_acquire) || (state & Task::kKilled) != 0) break;
    if ((state & Task::kWoken) == 0) task.SleepOnWakeState(state, -1);
  }
  task.wake_state_.fetch_and(~Task::kAsleep, std::memory_order_acq_rel);
}

void SignalDelivery::NotifyParent(ThreadGroup& group, int32_t code) {
  PidNamespace& pids = group.kernel().pids();
  const absl::MutexLock lock(&pids.tree_mu());
  ThreadGroup* parent = group.parent_;
  if (parent == nullptr) return;
  SignalInfo info;
  info.signal = SIGCHLD;
  info.code = code;
  info.pid = group.id();
  info.uid = group.leader_ != nullptr ? group.leader_->credentials()->uid : 0;
  {
    const absl::MutexLock signal_lock(&group.signal_mu_);
    info.status =
        code == CLD_CONTINUED ? SIGCONT : (group.stop_signal_ != 0 ? group.stop_signal_ : SIGSTOP);
  }
  const ResourceUsage usage = group.Usage();
  info.user_time = usage.user_ns / kTickNs;
  info.system_time = usage.system_ns / kTickNs;
  const SignalAction action = parent->handlers()->Get(SIGCHLD);
  if (action.handler != kHandlerIgnore && (action.flags & SA_NOCLDSTOP) == 0) {
    (void)Send(*parent, nullptr, info, false);  // A standard signal: never refused.
  }
  parent->child_queue_.Notify(kPollReadable);
}

// The action of a signal without a handler. True if the task is to leave.
bool SignalDelivery::ActByDefault(Task& task, const SignalInfo& info) {
  ThreadGroup& group = *task.group_;
  const SignalSet bit = SignalBit(info.signal);
  if ((bit & kIgnoredByDefault) != 0) return false;
  if (group.unkillable() && (bit & kUnblockable) == 0) return false;
  if ((bit & kStopSignals) != 0) {
    if (info.signal != SIGSTOP) {
      // Nobody could continue an orphaned group (POSIX 2.4.3).
      PidNamespace& pids = task.kernel_.pids();
      const absl::ReaderMutexLock tree_lock(&pids.tree_mu());
      if (group.process_group_ == nullptr ||
          JobControl::IsOrphanedLocked(*group.process_group_, nullptr))
        return false;
    }
    const absl::MutexLock lock(&group.signal_mu_);
    StartStopLocked(task, info.signal);
    return false;
  }
  group.StartExit(FatalStatus(task, info.signal));
  return true;
}

int32_t SignalDelivery::FatalStatus(Task& task, int signal) {
  const std::shared_ptr<MemoryManager> memory = task.memory_ref();
  const bool dumps = (SignalBit(signal) & kCoreSignals) != 0 &&
                     task.group().Limit(RLIMIT_CORE) > 0 && memory != nullptr &&
                     memory->dumpable() == 1;
  // WCOREDUMP. What a core file would hold is not written: see README.md.
  return dumps ? signal | 0x80 : signal;
}

std::optional<SignalToHandle> SignalDelivery::Next(Task& task) {
  ThreadGroup& group = *task.group_;
  while (true) {
    std::optional<SignalInfo> info;
    SignalAction action;
    bool stop = false;
    int32_t notify = 0;
    {
      const absl::MutexLock lock(&group.signal_mu_);
      if (task.IsKilled() || group.IsExiting()) return std::nullopt;
      notify = std::exchange(group.notify_parent_, 0);
      stop = notify == 0 && task.stop_requested_;
      if (notify == 0 && !stop) {
        const SignalSet allowed = ~task.signal_mask();
        info = task.pending_.TakeSynchronous(allowed);
        if (!info) info = task.pending_.Take(allowed);
        if (!info) info = group.pending_.Take(allowed);
        if (!info) {
          RecalculateLocked(task);
          return std::nullopt;
        }
        action = group.handlers_->Get(info->signal);
        if ((SignalBit(info->signal) & kStopSignals) != 0) task.stop_dequeued_ = true;
        const bool handled = action.handler != kHandlerIgnore && action.handler != kHandlerDefault;
        if (handled && (action.flags & SA_RESETHAND) != 0) {
          SignalAction reset = action;
          reset.handler = kHandlerDefault;
          group.handlers_->Set(info->signal, reset);
        }
      }
    }
    if (notify != 0) {
      NotifyParent(group, notify);
      continue;
    }
    if (stop) {
      TakePartInStop(task);
      continue;
    }
    const bool handled = action.handler != kHandlerIgnore && action.handler != kHandlerDefault;
    if (info->from_timer) {
      if (const std::shared_ptr<ProcessTimers> timers = group.ExistingTimers())
        timers->OnSignalGone(*info, handled);
    }
    if (handled) return SignalToHandle{*info, action};
    if (action.handler == kHandlerDefault && ActByDefault(task, *info)) return std::nullopt;
  }
}

}  // namespace sentry
