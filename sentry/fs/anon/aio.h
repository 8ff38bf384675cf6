#pragma once

// Contexts of asynchronous I/O (io_setup(2)): completions that wait to be fetched, and requests
// that are under way.
//
// Reads, writes and syncs are done when they are submitted, as Linux does for all but direct I/O;
// only IOCB_CMD_POLL waits.

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/vfs/file.h"

namespace sentry {

class EventFile;

// struct io_event.
struct AioEvent {
  uint64_t data;
  uint64_t request;  // Address of the guest's iocb.
  int64_t result;
  int64_t result2;
};

class AioContext : public std::enable_shared_from_this<AioContext> {
 public:
  // `slots`: requests and completions together. They are in `account` already, and given back.
  AioContext(std::atomic<uint64_t>& account, uint64_t charged, uint64_t slots)
      : account_(account), charged_(charged), slots_(slots) {}
  ~AioContext();
  AioContext(const AioContext&) = delete;
  AioContext& operator=(const AioContext&) = delete;

  // A place for one more request. EAGAIN.
  base::Result<void> Reserve() ABSL_LOCKS_EXCLUDED(mu_);
  void Unreserve() ABSL_LOCKS_EXCLUDED(mu_);
  // The reserved request is done; `notified` may be null.
  void Complete(const AioEvent& event, EventFile* notified) ABSL_LOCKS_EXCLUDED(mu_);
  // Completes when `file` is ready for one of `interest`.
  void StartPoll(const AioEvent& request, FileRef file, PollMask interest,
                 std::shared_ptr<EventFile> notified) ABSL_LOCKS_EXCLUDED(mu_);
  // EINVAL if it is not under way.
  base::Result<void> Cancel(uint64_t request) ABSL_LOCKS_EXCLUDED(mu_);
  // Up to `most` completions, oldest first.
  std::vector<AioEvent> Take(size_t most) ABSL_LOCKS_EXCLUDED(mu_);
  // io_destroy(2): those who sleep in io_getevents go; nothing completes any more.
  void Close() ABSL_LOCKS_EXCLUDED(mu_);
  bool IsClosed() const ABSL_LOCKS_EXCLUDED(mu_);
  WaitQueue& queue() { return queue_; }

 private:
  class PollRequest;
  void Finish(PollRequest& poll, PollMask mask) ABSL_LOCKS_EXCLUDED(mu_);

  std::atomic<uint64_t>& account_;
  const uint64_t charged_;
  const uint64_t slots_;
  WaitQueue queue_;
  mutable absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t used_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<AioEvent> events_ ABSL_GUARDED_BY(mu_);
  std::vector<std::shared_ptr<PollRequest>> polls_ ABSL_GUARDED_BY(mu_);
};

// Those of one address space, by the address of the page that stands for each. Thread-safe.
class AioContexts {
 public:
  ~AioContexts();
  void Add(uint64_t id, std::shared_ptr<AioContext> context) ABSL_LOCKS_EXCLUDED(mu_);
  // Null if there is none.
  std::shared_ptr<AioContext> Find(uint64_t id) const ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<AioContext> Remove(uint64_t id) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  std::map<uint64_t, std::shared_ptr<AioContext>> contexts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
