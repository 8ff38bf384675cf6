#pragma once

// What the stack takes from outside besides packets: time and randomness.

#include <cstdint>
#include <span>

namespace netstack {

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic.
  virtual int64_t NowNs() const = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  // Unpredictable to others: ports, sequence numbers and cookies come from it.
  virtual void Fill(std::span<uint8_t> bytes) = 0;
  uint32_t Next32() {
    uint32_t value = 0;
    Fill({reinterpret_cast<uint8_t*>(&value), sizeof(value)});
    return value;
  }
};

inline constexpr int64_t kNsPerMs = 1'000'000;
inline constexpr int64_t kNsPerSecond = 1'000'000'000;
inline constexpr int64_t kNever = INT64_MAX;

}  // namespace netstack
