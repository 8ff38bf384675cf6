#pragma once

// Readiness: what may block has a WaitQueue; who wants to know has a Waiter in it.
//
// Nothing below the system-call layer sleeps. An operation that cannot go on returns EAGAIN, and
// the caller (a task's blocking call, epoll, poll, a signal-driven owner) registers a Waiter, looks
// again, then sleeps. So each blocking call can be unwound to the system-call boundary.

#include <poll.h>

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace sentry {

// POLLIN, POLLOUT, POLLPRI, POLLERR, POLLHUP, POLLRDHUP, ... as in <poll.h>.
using PollMask = uint32_t;

inline constexpr PollMask kPollReadable = POLLIN | POLLRDNORM;
inline constexpr PollMask kPollWritable = POLLOUT | POLLWRNORM;
inline constexpr PollMask kPollAlways = POLLERR | POLLHUP;

class Waiter;

// The waiters of a queue, shared by the queue and each of them: so that a queue may go (with its
// file) while waiters of epoll are still registered.
struct WaitList {
  absl::Mutex mu;
  std::list<Waiter*> waiters ABSL_GUARDED_BY(mu);
};

// Registered in at most one queue at a time; Add, Remove and Detach of one waiter are called by its
// owner, one at a time. The owner removes it before it is destroyed.
class Waiter {
 public:
  Waiter() = default;
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  virtual ~Waiter() = default;

  // Called with the queue's lock held: must not block, nor touch that queue. Returns true if this
  // waiter takes the event (which matters for exclusive waiters only).
  virtual bool OnEvent(PollMask mask) = 0;

  // Leaves whatever queue it is in, which may have been destroyed meanwhile. After it returns no
  // OnEvent runs.
  void Detach();

 private:
  friend class WaitQueue;
  PollMask interest_ = 0;
  bool exclusive_ = false;
  std::shared_ptr<WaitList> list_;  // Null: not registered.
  std::list<Waiter*>::iterator position_;
};

// Thread-safe. A queue without waiters costs a pointer, and notifying it a fence and a load.
class WaitQueue {
 public:
  WaitQueue() = default;
  WaitQueue(const WaitQueue&) = delete;
  WaitQueue& operator=(const WaitQueue&) = delete;
  ~WaitQueue();

  // `interest` always includes POLLERR and POLLHUP. An exclusive waiter is woken alone
  // (EPOLLEXCLUSIVE, accept); Linux's order: non-exclusive ones all, then exclusive ones until one
  // takes the event.
  void Add(Waiter& waiter, PollMask interest, bool exclusive = false);
  // A waiter that is not in the queue is left alone. After it returns no OnEvent runs.
  void Remove(Waiter& waiter);
  // The state that waiters look at has changed before this is called. True if some waiter took the
  // event.
  bool Notify(PollMask mask);
  // For a queue whose waiters notify other queues (epoll): the lock-order checker of debug builds
  // is to forget which, since descriptions may be nested the other way round later.
  void ForgetLockOrder();

 private:
  // Made by the first Add. Points to a shared_ptr of the queue's own.
  std::atomic<std::shared_ptr<WaitList>*> list_{nullptr};
};

}  // namespace sentry
