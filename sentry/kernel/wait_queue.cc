#include "sentry/kernel/wait_queue.h"

#include "platform/base/check.h"

namespace sentry {

void WaitQueue::Add(Waiter& waiter, PollMask interest, bool exclusive) {
  const absl::MutexLock lock(&mu_);
  CHECK(waiter.queue_ == nullptr);
  waiter.interest_ = interest | kPollAlways;
  waiter.exclusive_ = exclusive;
  waiter.queue_ = this;
  // Exclusive waiters stay behind all others, in order of arrival.
  waiter.position_ = exclusive ? waiters_.insert(waiters_.end(), &waiter) : waiters_.insert(waiters_.begin(), &waiter);
}

void WaitQueue::Remove(Waiter& waiter) {
  const absl::MutexLock lock(&mu_);
  if (waiter.queue_ != this) return;
  waiters_.erase(waiter.position_);
  waiter.queue_ = nullptr;
}

void WaitQueue::Notify(PollMask mask) {
  const absl::MutexLock lock(&mu_);
  for (Waiter* waiter : waiters_) {
    if ((waiter->interest_ & mask) == 0) continue;
    const bool taken = waiter->OnEvent(mask & waiter->interest_);
    if (waiter->exclusive_ && taken) return;
  }
}

}  // namespace sentry
