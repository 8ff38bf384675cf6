// Sending a signal: is it ignored, is there room, and which task is told (Linux:
// send_signal_locked, prepare_signal, complete_signal in kernel/signal.c, 6.12).
//
// The group's signal lock is held for the decision; wait queues and timers are told after it is
// dropped, because their own callbacks look at pending signals.

#include <sys/resource.h>

#include <algorithm>
#include <utility>

#include "platform/base/check.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/signal/signal_delivery.h"
#include "sentry/time/process_timers.h"

namespace sentry {

// One queued entry of a user's RLIMIT_SIGPENDING.
class SignalCharge {
 public:
  explicit SignalCharge(std::shared_ptr<UserAccount> account) : account_(std::move(account)) {}
  SignalCharge(const SignalCharge&) = delete;
  SignalCharge& operator=(const SignalCharge&) = delete;
  ~SignalCharge() { account_->signals.fetch_sub(1, std::memory_order_relaxed); }

 private:
  std::shared_ptr<UserAccount> account_;
};

struct SignalDelivery::Effects {
  std::vector<TaskRef> notify;
  std::vector<SignalInfo> dropped;
};

bool SignalDelivery::IsIgnoredLocked(const ThreadGroup& group, const Task* target, int signal,
                                     bool force) {
  // A blocked signal waits: its action may change before it is unblocked.
  if (target != nullptr &&
      ((target->signal_mask() | target->awaited_signals_) & SignalBit(signal)) != 0)
    return false;
  const uint64_t handler = group.handlers_->Get(signal).handler;
  const bool forced = force && (SignalBit(signal) & kUnblockable) != 0;
  if (group.unkillable() && handler == kHandlerDefault && !forced) return true;
  return handler == kHandlerIgnore ||
         (handler == kHandlerDefault && (SignalBit(signal) & kIgnoredByDefault) != 0);
}

void SignalDelivery::ClearEverywhereLocked(ThreadGroup& group, SignalSet set, Effects& effects) {
  group.pending_.Clear(set, &effects.dropped);
  for (Task* task : group.signal_targets_) task->pending_.Clear(set, &effects.dropped);
}

void SignalDelivery::ContinueLocked(ThreadGroup& group, Effects& effects) {
  ClearEverywhereLocked(group, kStopSignals, effects);
  for (Task* task : group.signal_targets_) {
    task->stop_dequeued_ = false;
    task->stop_requested_ = false;
    if (task->stopped_.exchange(false)) task->SetWakeBits(Task::kInterrupt);
  }
  // The parent hears of it from the first task that runs again. A stop that was not complete counts
  // as one that was.
  if (group.stopped_) {
    group.notify_parent_ = CLD_CONTINUED;
    group.continue_report_ = true;
    group.stop_report_ = 0;
  } else if (group.stop_signal_ != 0) {
    group.notify_parent_ = CLD_STOPPED;
  }
  group.stopped_ = false;
  group.stop_signal_ = 0;
  group.stop_remaining_ = 0;
  if (group.notify_parent_ != 0) {
    for (Task* task : group.signal_targets_) task->SetWakeBits(Task::kInterrupt);
  }
}

bool SignalDelivery::PrepareLocked(ThreadGroup& group, Task* target, int signal, bool force,
                                   Effects& effects) {
  if (group.IsExiting()) return false;
  if ((SignalBit(signal) & kStopSignals) != 0) {
    ClearEverywhereLocked(group, SignalBit(SIGCONT), effects);
  } else if (signal == SIGCONT) {
    ContinueLocked(group, effects);
  }
  const Task* judge = target;
  if (judge == nullptr && !group.signal_targets_.empty()) judge = group.signal_targets_.front();
  return !IsIgnoredLocked(group, judge, signal, force);
}

base::Result<void> SignalDelivery::QueueLocked(ThreadGroup& group, Task* target,
                                               const SignalInfo& info) {
  PendingSignals& queue = target != nullptr ? target->pending_ : group.pending_;
  if (info.signal < kFirstRealTime && queue.Contains(info.signal)) return {};
  uint32_t uid = 0;
  const Task* charged = target;
  if (charged == nullptr && !group.signal_targets_.empty()) charged = group.signal_targets_.front();
  if (charged != nullptr) uid = charged->credentials()->uid;
  std::shared_ptr<UserAccount> account = group.kernel().UserAccountOf(uid);
  const uint64_t count = account->signals.fetch_add(1, std::memory_order_relaxed) + 1;
  const bool exempt = info.from_timer || (info.signal < kFirstRealTime && info.code >= 0);
  if (!exempt && count > group.Limit(RLIMIT_SIGPENDING)) {
    account->signals.fetch_sub(1, std::memory_order_relaxed);
    if (info.signal >= kFirstRealTime && info.code != SI_USER) return base::Errno(EAGAIN);
    queue.Add(info, nullptr);
    return {};
  }
  queue.Add(info, std::make_shared<SignalCharge>(std::move(account)));
  return {};
}

bool SignalDelivery::WantsLocked(const Task& task, int signal) {
  if ((task.signal_mask() & ~task.awaited_signals_ & SignalBit(signal)) != 0) return false;
  if (signal == SIGKILL) return true;
  return !task.stopped_.load(std::memory_order_relaxed);
}

void SignalDelivery::KillOthersLocked(ThreadGroup& group, const Task* survivor) {
  group.stop_remaining_ = 0;
  for (Task* task : group.signal_targets_) {
    if (task == survivor) continue;
    task->stop_requested_ = false;
    task->stopped_.store(false, std::memory_order_relaxed);
    task->Kill();
  }
}

void SignalDelivery::CompleteLocked(ThreadGroup& group, Task* target, int signal) {
  Task* chosen = nullptr;
  if (target != nullptr) {
    if (WantsLocked(*target, signal)) chosen = target;
  } else {
    // The first task that has nothing else to look at; else any that would take it.
    for (Task* task : group.signal_targets_) {
      if (!WantsLocked(*task, signal)) continue;
      if (chosen == nullptr) chosen = task;
      if (!task->IsInterrupted()) {
        chosen = task;
        break;
      }
    }
  }
  if (chosen == nullptr) return;  // It waits until somebody unblocks it.
  const SignalSet bit = SignalBit(signal);
  const bool fatal = (bit & (kIgnoredByDefault | kStopSignals)) == 0 || signal == SIGKILL;
  if (fatal && group.handlers_->Get(signal).handler == kHandlerDefault &&
      (bit & kCoreSignals) == 0 && (chosen->awaited_signals_ & bit) == 0 &&
      (signal == SIGKILL || !group.unkillable())) {
    // The whole process goes at once; nobody needs to dequeue it first.
    group.exit_status_ = signal;
    group.exiting_.store(true, std::memory_order_release);
    KillOthersLocked(group, nullptr);
    return;
  }
  chosen->SetWakeBits(Task::kInterrupt);
}

void SignalDelivery::RunEffects(ThreadGroup& group, Effects& effects) {
  for (const TaskRef& task : effects.notify) task->signal_queue_.Notify(kPollReadable);
  if (effects.dropped.empty()) return;
  if (const std::shared_ptr<ProcessTimers> timers = group.ExistingTimers()) {
    for (SignalInfo& info : effects.dropped) timers->OnSignalGone(info, false);
  }
}

namespace {

// The sender's ids as the receiver's namespaces call them.
SignalInfo AsSeenBy(const ThreadGroup& group, const Task* target, SignalInfo info) {
  const bool names_sender = info.code == SI_USER || info.code == SI_TKILL ||
                            info.code == SI_QUEUE || info.signal == SIGCHLD;
  if (group.pid_view() != nullptr && names_sender) info.pid = SeenBy(group, info.pid);
  if (target != nullptr && names_sender)
    info.uid = UidSeenFrom(target->credentials()->user_namespace, info.uid);
  return info;
}

}  // namespace

base::Result<void> SignalDelivery::Send(ThreadGroup& group, Task* target, const SignalInfo& info,
                                        bool force) {
  Effects effects;
  base::Result<void> result;
  {
    const absl::MutexLock lock(&group.signal_mu_);
    if (PrepareLocked(group, target, info.signal, force, effects)) {
      result = QueueLocked(group, target, AsSeenBy(group, target, info));
      if (result.ok()) {
        CompleteLocked(group, target, info.signal);
        for (Task* task : group.signal_targets_) {
          if (target == nullptr || task == target)
            effects.notify.push_back(task->shared_from_this());
        }
      }
    }
  }
  RunEffects(group, effects);
  return result;
}

SignalAction SignalDelivery::SetAction(Task& task, int signal, const SignalAction& action) {
  ThreadGroup& group = task.group();
  Effects effects;
  SignalAction old;
  {
    const absl::MutexLock lock(&group.signal_mu_);
    old = group.handlers_->Set(signal, action);
    const bool ignored =
        action.handler == kHandlerIgnore ||
        (action.handler == kHandlerDefault && (SignalBit(signal) & kIgnoredByDefault) != 0);
    // POSIX 3.3.1.3: pending ones are discarded, blocked or not.
    if (ignored) ClearEverywhereLocked(group, SignalBit(signal), effects);
  }
  RunEffects(group, effects);
  return old;
}

void SignalDelivery::RetargetLocked(Task& task, SignalSet no_longer_taken) {
  ThreadGroup& group = *task.group_;
  const SignalSet moved = group.pending_.set() & no_longer_taken;
  for (Task* other : group.signal_targets_) {
    if (other == &task || moved == 0) continue;
    if ((moved & ~other->signal_mask()) != 0 && !other->IsInterrupted())
      other->SetWakeBits(Task::kInterrupt);
  }
}

void SignalDelivery::AddTarget(Task& task) {
  ThreadGroup& group = *task.group_;
  const absl::MutexLock lock(&group.signal_mu_);
  group.signal_targets_.push_back(&task);
  // Born into a stop, an exit or an execve that is being carried out.
  if (group.stop_signal_ != 0) {
    task.stop_requested_ = true;
    if (!group.stopped_) ++group.stop_remaining_;
  }
  if (group.IsExiting() || group.exec_task_ != nullptr) task.Kill();
  task.SetWakeBits(Task::kInterrupt);
}

void SignalDelivery::RemoveTarget(Task& task) {
  ThreadGroup& group = *task.group_;
  bool stop_complete = false;
  {
    const absl::MutexLock lock(&group.signal_mu_);
    const auto position =
        std::find(group.signal_targets_.begin(), group.signal_targets_.end(), &task);
    if (position == group.signal_targets_.end()) return;
    group.signal_targets_.erase(position);
    RetargetLocked(task, ~task.signal_mask());
    if (task.stop_requested_ && group.stop_signal_ != 0 && !group.stopped_) {
      task.stop_requested_ = false;
      if (--group.stop_remaining_ == 0 && !group.signal_targets_.empty()) {
        group.stopped_ = stop_complete = true;
        group.stop_report_ = group.stop_signal_;
      }
    }
    task.pending_.Clear(~SignalSet{0});
    const ResourceUsage usage = task.Usage();
    const absl::MutexLock usage_lock(&group.usage_mu_);
    group.dead_usage_.Add(usage);
  }
  if (stop_complete) NotifyParent(group, CLD_STOPPED);
}

}  // namespace sentry
