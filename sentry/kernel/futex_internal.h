#pragma once

// Shared by futex.cc and futex_pi.cc.

#include <atomic>
#include <functional>
#include <list>
#include <memory>
#include <optional>

#include "absl/container/inlined_vector.h"
#include "absl/synchronization/mutex.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/task.h"

namespace sentry {

// One sleeping task on one word; lives on the sleeper's stack.
struct FutexWaiter {
  Task* task = nullptr;
  uint32_t bitset = kFutexBitsetAny;
  // Where it is queued. Changes by requeue, under the locks of both buckets; read by the sleeper to
  // find the lock to take.
  std::atomic<FutexBucket*> bucket{nullptr};
  FutexKey key;                                // Guarded by the bucket.
  std::list<FutexWaiter*>::iterator position;  // Guarded by the bucket.
  // Set last by who takes it out of the bucket: after that the waker does not touch it.
  std::atomic<bool> woken{false};

  // PI. The word in the sleeper's own address space that is to hold its tid. Guarded by pi_mu_.
  MemoryManager* memory = nullptr;
  base::UserAddr pi_addr;
  bool is_pi = false;                      // Waits for the lock `key`. Also guarded by the bucket.
  std::optional<FutexKey> requeue_pi_key;  // Waits to be moved there. Also guarded by the bucket.
  bool requeued = false;
};

struct FutexBucket {
  absl::Mutex mu;
  std::list<FutexWaiter*> waiters ABSL_GUARDED_BY(mu);  // In order of arrival.
};

// A lock that is held and waited for. Its waiters are in the key's bucket too, so that FUTEX_WAKE
// finds them there and refuses.
struct PiState {
  int32_t owner_tid = 0;
  std::list<FutexWaiter*> waiters;  // In order of arrival, not empty.
};

// Two buckets, locked in the order of their addresses; they may be the same.
class ABSL_SCOPED_LOCKABLE TwoBuckets {
 public:
  TwoBuckets(FutexBucket& a, FutexBucket& b)
      ABSL_EXCLUSIVE_LOCK_FUNCTION(a.mu, b.mu) ABSL_NO_THREAD_SAFETY_ANALYSIS : first_(&a),
                                                                                second_(&b) {
    if (std::less<FutexBucket*>()(second_, first_)) std::swap(first_, second_);
    first_->mu.Lock();
    if (second_ != first_) second_->mu.Lock();
  }
  ~TwoBuckets() ABSL_UNLOCK_FUNCTION() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (second_ != first_) second_->mu.Unlock();
    first_->mu.Unlock();
  }
  TwoBuckets(const TwoBuckets&) = delete;
  TwoBuckets& operator=(const TwoBuckets&) = delete;

 private:
  FutexBucket* first_;
  FutexBucket* second_;
};

// Tasks to wake after the locks are released. Holding references: once a waiter is marked woken its
// task may exit.
class WakeList {
 public:
  ~WakeList() {
    for (const TaskRef& task : tasks_) task->Wake();
  }
  // Under the waiter's bucket lock. Takes it out of its bucket.
  void Take(FutexWaiter& waiter) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    tasks_.push_back(waiter.task->shared_from_this());
    waiter.bucket.load(std::memory_order_relaxed)->waiters.erase(waiter.position);
    waiter.bucket.store(nullptr, std::memory_order_relaxed);
    waiter.woken.store(true, std::memory_order_release);
  }

 private:
  absl::InlinedVector<TaskRef, 4> tasks_;
};

}  // namespace sentry
