// Task's and ThreadGroup's methods that concern signals.

#include <algorithm>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/signal/signal_delivery.h"
#include "sentry/time/process_timers.h"

namespace sentry {

base::Result<void> Task::SendSignal(const SignalInfo& info, bool force) {
  return SignalDelivery::Send(*group_, this, info, force);
}

base::Result<void> ThreadGroup::SendSignal(const SignalInfo& info, bool force) {
  return SignalDelivery::Send(*this, nullptr, info, force);
}

void Task::ForceSignal(const SignalInfo& info) {
  {
    const absl::MutexLock lock(&group_->signal_mu_);
    SignalAction action = group_->handlers_->Get(info.signal);
    const bool blocked = (signal_mask() & SignalBit(info.signal)) != 0;
    if (blocked || action.handler == kHandlerIgnore) {
      action.handler = kHandlerDefault;
      group_->handlers_->Set(info.signal, action);
      signal_mask_.store(signal_mask() & ~SignalBit(info.signal), std::memory_order_relaxed);
    }
    // A fault of init ends it: it could only fault again.
    if (action.handler == kHandlerDefault)
      group_->unkillable_.store(false, std::memory_order_relaxed);
    // An instance that is pending already gives way to this one, which tells of the fault at hand.
    pending_.Clear(SignalBit(info.signal));
  }
  (void)SignalDelivery::Send(*group_, this, info, true);  // Never refused: not a real-time signal.
}

void Task::set_signal_mask(SignalSet mask) {
  mask &= ~kUnblockable;
  const absl::MutexLock lock(&group_->signal_mu_);
  const SignalSet newly_blocked = mask & ~signal_mask();
  signal_mask_.store(mask, std::memory_order_relaxed);
  if (newly_blocked != 0) SignalDelivery::RetargetLocked(*this, newly_blocked);
  SignalDelivery::RecalculateLocked(*this);
}

void Task::SetTemporarySignalMask(SignalSet mask) {
  if (!saved_mask_valid_) {
    saved_mask_ = signal_mask();
    saved_mask_valid_ = true;
  }
  set_signal_mask(mask);
}

SignalSet Task::own_pending_signals() const {
  const absl::MutexLock lock(&group_->signal_mu_);
  return pending_.set();
}

SignalSet Task::pending_signals() const {
  const absl::MutexLock lock(&group_->signal_mu_);
  return pending_.set() | group_->pending_.set();
}

std::optional<SignalInfo> Task::DequeueSignal(SignalSet set) {
  std::optional<SignalInfo> info;
  {
    const absl::MutexLock lock(&group_->signal_mu_);
    info = pending_.Take(set);
    if (!info) info = group_->pending_.Take(set);
  }
  if (info && info->from_timer) {
    if (const std::shared_ptr<ProcessTimers> timers = group_->ExistingTimers())
      timers->OnSignalGone(*info, true);
  }
  return info;
}

void Task::SetAwaitedSignals(SignalSet set) {
  const absl::MutexLock lock(&group_->signal_mu_);
  awaited_signals_ = set & ~kUnblockable;
  SignalDelivery::RecalculateLocked(*this);
}

base::Result<uint64_t> Task::RestartWith(RestartFunction function) {
  restart_ = std::move(function);
  return base::kRestartBlock;
}

base::Result<uint64_t> Task::RunRestart() {
  if (!restart_) return base::Errno(EINTR);
  const RestartFunction function = std::exchange(restart_, nullptr);
  return function(*this);
}

SignalSet ThreadGroup::pending() const {
  const absl::MutexLock lock(&signal_mu_);
  return pending_.set();
}

std::shared_ptr<SignalHandlers> ThreadGroup::handlers() const {
  const absl::MutexLock lock(&signal_mu_);
  return handlers_;
}

bool ThreadGroup::IsStopped() const {
  const absl::MutexLock lock(&signal_mu_);
  return stopped_;
}

void ThreadGroup::StartExit(int32_t status) {
  const absl::MutexLock lock(&signal_mu_);
  if (IsExiting()) return;
  exit_status_ = status;
  exiting_.store(true, std::memory_order_release);
  SignalDelivery::KillOthersLocked(*this, nullptr);
}

}  // namespace sentry
