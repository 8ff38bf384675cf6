#pragma once

// Readiness: what may block has a WaitQueue; who wants to know has a Waiter in it.
//
// Nothing below the system-call layer sleeps. An operation that cannot go on returns EAGAIN, and the caller
// (a task's blocking call, epoll, poll, a signal-driven owner) registers a Waiter, looks again, then
// sleeps. So each blocking call can be unwound to the system-call boundary.

#include <poll.h>

#include <cstdint>
#include <list>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace sentry {

// POLLIN, POLLOUT, POLLPRI, POLLERR, POLLHUP, POLLRDHUP, ... as in <poll.h>.
using PollMask = uint32_t;

inline constexpr PollMask kPollReadable = POLLIN | POLLRDNORM;
inline constexpr PollMask kPollWritable = POLLOUT | POLLWRNORM;
inline constexpr PollMask kPollAlways = POLLERR | POLLHUP;

class WaitQueue;

// Registered in at most one queue at a time. The owner removes it before it is destroyed.
class Waiter {
 public:
  Waiter() = default;
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  virtual ~Waiter() = default;

  // Called with the queue's lock held: must not block, nor touch that queue. Returns true if this
  // waiter takes the event (which matters for exclusive waiters only).
  virtual bool OnEvent(PollMask mask) = 0;

 private:
  friend class WaitQueue;
  PollMask interest_ = 0;
  bool exclusive_ = false;
  WaitQueue* queue_ = nullptr;
  std::list<Waiter*>::iterator position_;
};

// Thread-safe.
class WaitQueue {
 public:
  WaitQueue() = default;
  WaitQueue(const WaitQueue&) = delete;
  WaitQueue& operator=(const WaitQueue&) = delete;

  // `interest` always includes POLLERR and POLLHUP. An exclusive waiter is woken alone (EPOLLEXCLUSIVE,
  // accept); Linux's order: non-exclusive ones all, then exclusive ones until one takes the event.
  void Add(Waiter& waiter, PollMask interest, bool exclusive = false) ABSL_LOCKS_EXCLUDED(mu_);
  // A waiter that is not in the queue is left alone. After it returns no OnEvent runs.
  void Remove(Waiter& waiter) ABSL_LOCKS_EXCLUDED(mu_);
  void Notify(PollMask mask) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Mutex mu_;
  std::list<Waiter*> waiters_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
