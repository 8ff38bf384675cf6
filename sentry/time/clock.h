#pragma once

// Time enters the sentry here and nowhere else, so that a run can be recorded, replayed and tested.

#include <cstdint>
#include <limits>

namespace sentry {

// Nanoseconds. Monotonic time starts at an arbitrary point; realtime since the Epoch.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t MonotonicNs() const = 0;
  virtual int64_t RealtimeNs() const = 0;
};

// An instant on the monotonic clock.
struct Deadline {
  int64_t monotonic_ns = std::numeric_limits<int64_t>::max();
  static constexpr Deadline Never() { return {}; }
  static constexpr Deadline At(int64_t ns) { return {ns}; }
  constexpr bool IsNever() const { return monotonic_ns == std::numeric_limits<int64_t>::max(); }
};

// Random bytes for guests (getrandom, /dev/urandom, AT_RANDOM, ASLR).
class Random {
 public:
  virtual ~Random() = default;
  virtual void Fill(void* data, uint64_t size) = 0;
  uint64_t Next() {
    uint64_t value = 0;
    Fill(&value, sizeof(value));
    return value;
  }
};

}  // namespace sentry
