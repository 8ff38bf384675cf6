#pragma once

// Limits of a process (getrlimit(2)) and what it has used (getrusage(2)).

#include <sys/resource.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"

namespace sentry {

struct ResourceLimit {
  uint64_t soft = ~uint64_t{0};
  uint64_t hard = ~uint64_t{0};
};
inline constexpr int kResourceLimitCount = 16;  // RLIM_NLIMITS
using ResourceLimitValues = std::array<ResourceLimit, kResourceLimitCount>;

// Linux's limits of the first process (INIT_RLIMITS), with room for `tasks_max`.
ResourceLimitValues DefaultResourceLimits(uint64_t tasks_max);

// Thread-safe.
class ResourceLimits {
 public:
  explicit ResourceLimits(const ResourceLimitValues& values) : values_(values) {
    for (size_t i = 0; i < values.size(); ++i) soft_[i] = values[i].soft;
  }
  // What most calls want to know, without the lock.
  uint64_t Soft(int resource) const {
    return soft_[static_cast<size_t>(resource)].load(std::memory_order_relaxed);
  }
  ResourceLimit Get(int resource) const ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::ReaderMutexLock lock(&mu_);
    return values_[static_cast<size_t>(resource)];
  }
  void Set(int resource, const ResourceLimit& limit) ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    values_[static_cast<size_t>(resource)] = limit;
    soft_[static_cast<size_t>(resource)].store(limit.soft, std::memory_order_relaxed);
  }
  ResourceLimitValues all() const ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::ReaderMutexLock lock(&mu_);
    return values_;
  }

 private:
  mutable absl::Mutex mu_;
  ResourceLimitValues values_ ABSL_GUARDED_BY(mu_);
  std::array<std::atomic<uint64_t>, kResourceLimitCount> soft_;  // A copy.
};

struct ResourceUsage {
  int64_t user_ns = 0;
  int64_t system_ns = 0;
  uint64_t resident_kib_max = 0;
  uint64_t minor_faults = 0;
  uint64_t major_faults = 0;
  uint64_t voluntary_switches = 0;
  uint64_t involuntary_switches = 0;

  void Add(const ResourceUsage& other);
};

}  // namespace sentry
