#pragma once

// eventfd(2): a counter to wait for.

#include "absl/synchronization/mutex.h"
#include "sentry/fs/anon/anonymous_files.h"

namespace sentry {

class EventFile : public AnonymousFile {
 public:
  static constexpr uint64_t kCountMax = ~uint64_t{0} - 1;

  EventFile(Task& task, uint64_t initial, bool semaphore, uint32_t flags);

  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<size_t> Write(Task& task, IoBuffer& from, uint64_t* offset) override
      ABSL_LOCKS_EXCLUDED(mu_);
  // As the kernel signals it (AIO): cut at the largest value, which polls as POLLERR.
  void Signal(uint64_t count) ABSL_LOCKS_EXCLUDED(mu_);
  PollMask Poll(PollMask interest) override ABSL_LOCKS_EXCLUDED(mu_);
  WaitQueue* wait_queue() override { return &queue_; }
  std::string FdInfo() const override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const bool semaphore_;
  WaitQueue queue_;
  mutable absl::Mutex mu_;
  uint64_t count_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
