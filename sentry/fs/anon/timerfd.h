#pragma once

// timerfd_create(2). As with all timers here, nothing is armed between an expiry and the read that
// collects it: the expirations that pass meanwhile are computed.

#include <memory>

#include "absl/synchronization/mutex.h"
#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/time/timer_service.h"

namespace sentry {

class TimerFile : public AnonymousFile {
 public:
  // `clock_id` is one of timerfd_create(2)'s.
  TimerFile(Task& task, int32_t clock_id, uint32_t flags);

  struct Setting {
    int64_t value_ns = 0;  // 0: not armed.
    int64_t interval_ns = 0;
  };
  // `absolute`: value_ns is on the timer's clock. `flags` are only remembered (TFD_TIMER_*).
  // Returns the old setting.
  Setting SetTime(const Setting& setting, bool absolute, uint32_t flags) ABSL_LOCKS_EXCLUDED(mu_);
  Setting GetTime() ABSL_LOCKS_EXCLUDED(mu_);

  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<uint64_t> Ioctl(Task& task, uint32_t command, uint64_t argument) override
      ABSL_LOCKS_EXCLUDED(mu_);
  PollMask Poll(PollMask interest) override ABSL_LOCKS_EXCLUDED(mu_);
  WaitQueue* wait_queue() override { return &queue_; }
  std::string FdInfo() const override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  bool on_realtime() const;
  void OnExpiry() ABSL_LOCKS_EXCLUDED(mu_);
  // Counts the intervals that have passed since the expiry, and is armed again.
  void ForwardLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Setting GetLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int32_t clock_id_;
  const Clock& clock_;
  WaitQueue queue_;
  mutable absl::Mutex mu_;
  bool armed_ ABSL_GUARDED_BY(mu_) = false;
  bool expired_ ABSL_GUARDED_BY(mu_) = false;    // Fired at expires_ns_ and not armed since.
  int64_t expires_ns_ ABSL_GUARDED_BY(mu_) = 0;  // Monotonic.
  int64_t interval_ns_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t ticks_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t set_flags_ ABSL_GUARDED_BY(mu_) = 0;
  std::unique_ptr<Timer> timer_;  // Destroyed first: no callback afterwards.
};

}  // namespace sentry
