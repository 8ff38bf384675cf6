#pragma once

// Waiting for a file to become ready, the one way in which read, write, accept, connect and friends
// sleep.

#include <functional>

#include "platform/base/result.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/wait_queue.h"

namespace sentry {

// Wakes a task when its queue is notified.
class TaskWaiter : public Waiter {
 public:
  explicit TaskWaiter(Task& task) : task_(task) {}
  bool OnEvent(PollMask mask) override {
    (void)mask;
    task_.Wake();
    return true;
  }

 private:
  Task& task_;
};

// Calls `attempt` until it returns something other than EAGAIN, sleeping on `queue` for `interest`
// in between. With `nonblocking` set, or a null queue, EAGAIN is returned at once. ETIMEDOUT after
// the deadline; kRestartSys when interrupted (the caller maps it, e.g. to EINTR for calls with a
// time-out by SO_RCVTIMEO).
template <typename Attempt>
auto RetryUntilReady(Task& task, WaitQueue* queue, PollMask interest, bool nonblocking,
                     Deadline deadline, Attempt&& attempt) -> decltype(attempt()) {
  auto result = attempt();
  if (result.ok() || result.error() != EAGAIN || nonblocking || queue == nullptr) return result;
  TaskWaiter waiter(task);
  task.ClearWake();
  queue->Add(waiter, interest);
  while (true) {
    result = attempt();
    if (result.ok() || result.error() != EAGAIN) break;
    const base::Result<void> woken = task.Block(deadline);
    if (!woken.ok()) {
      result = woken.error();
      break;
    }
  }
  queue->Remove(waiter);
  return result;
}

}  // namespace sentry
