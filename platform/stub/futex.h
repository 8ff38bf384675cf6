#pragma once

// Futexes in memory that other processes share, and bounded spinning before them.

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <ctime>

namespace platform {

// Returns on a wake-up, a signal, a change of the word, or after `timeout` (relative; null: never).
inline void FutexWait(std::atomic<uint32_t>& word, uint32_t expected,
                      const timespec* timeout = nullptr) {
  syscall(SYS_futex, &word, FUTEX_WAIT, expected, timeout, nullptr, 0);
}

// Wakes everybody: a guest thread may be waiting on the same word to catch the wake-up of another.
inline void FutexWake(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// The host's monotonic clock.
inline uint64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

// How many PAUSE instructions take about `nanoseconds`; 0 if this process may use one CPU only,
// where waiting keeps the other side from running. Measures, so call it at start-up.
uint32_t SpinsFor(uint64_t nanoseconds);

inline void Pause() { __builtin_ia32_pause(); }

}  // namespace platform
