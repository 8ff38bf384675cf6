#include "sentry/kernel/wait_queue.h"

#include <utility>

#include "platform/base/check.h"

namespace sentry {

void Waiter::Detach() {
  if (list_ == nullptr) return;
  const std::shared_ptr<WaitList> list = std::move(list_);
  const absl::MutexLock lock(&list->mu);
  list->waiters.erase(position_);
}

WaitQueue::~WaitQueue() { delete list_.load(std::memory_order_acquire); }

void WaitQueue::Add(Waiter& waiter, PollMask interest, bool exclusive) {
  CHECK(waiter.list_ == nullptr);
  std::shared_ptr<WaitList>* list = list_.load(std::memory_order_acquire);
  if (list == nullptr) {
    auto fresh = std::make_unique<std::shared_ptr<WaitList>>(std::make_shared<WaitList>());
    if (list_.compare_exchange_strong(list, fresh.get(), std::memory_order_acq_rel))
      list = fresh.release();
  }
  waiter.interest_ = interest | kPollAlways;
  waiter.exclusive_ = exclusive;
  waiter.list_ = *list;
  {
    const absl::MutexLock lock(&waiter.list_->mu);
    std::list<Waiter*>& waiters = waiter.list_->waiters;
    // Exclusive waiters stay behind all others, in order of arrival.
    waiter.position_ = waiters.insert(exclusive ? waiters.end() : waiters.begin(), &waiter);
  }
  // Pairs with the one in Notify: either the waiter's look at the state sees the change, or Notify
  // sees the waiter.
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void WaitQueue::Remove(Waiter& waiter) {
  const std::shared_ptr<WaitList>* const list = list_.load(std::memory_order_acquire);
  if (list != nullptr && waiter.list_ == *list) waiter.Detach();
}

bool WaitQueue::Notify(PollMask mask) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const std::shared_ptr<WaitList>* const list = list_.load(std::memory_order_acquire);
  if (list == nullptr) return false;
  bool any = false;
  const absl::MutexLock lock(&(*list)->mu);
  for (Waiter* waiter : (*list)->waiters) {
    if ((waiter->interest_ & mask) == 0) continue;
    const bool taken = waiter->OnEvent(mask & waiter->interest_);
    any = any || taken;
    if (waiter->exclusive_ && taken) break;
  }
  return any;
}

void WaitQueue::ForgetLockOrder() {
  const std::shared_ptr<WaitList>* const list = list_.load(std::memory_order_acquire);
  if (list != nullptr) (*list)->mu.ForgetDeadlockInfo();
}

}  // namespace sentry
