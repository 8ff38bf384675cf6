#pragma once

// Time and randomness from the host.

#include <array>
#include <cstddef>

#include "absl/synchronization/mutex.h"
#include "sentry/time/clock.h"

namespace sentry {

// CLOCK_MONOTONIC and CLOCK_REALTIME of the host, through the vDSO: no host call.
class HostClock : public Clock {
 public:
  int64_t MonotonicNs() const override;
  int64_t RealtimeNs() const override;
};

// getrandom(2) in blocks; bytes that were handed out are wiped. Thread-safe.
class HostRandom : public Random {
 public:
  void Fill(void* data, uint64_t size) override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Mutex mu_;
  std::array<std::byte, 1024> block_ ABSL_GUARDED_BY(mu_);
  size_t used_ ABSL_GUARDED_BY(mu_) = 1024;
};

}  // namespace sentry
