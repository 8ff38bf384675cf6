#include "platform/stub/futex.h"

#include <sched.h>

#include <algorithm>

namespace platform {

uint32_t SpinsFor(uint64_t nanoseconds) {
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0 || CPU_COUNT(&cpus) < 2) return 0;
  // Some 10 us each on today's CPUs: this is on the way of every start.
  constexpr uint32_t kRounds = 300;
  uint64_t best = UINT64_MAX;
  for (int attempt = 0; attempt < 3; attempt++) {
    const uint64_t start = NowNs();
    for (uint32_t i = 0; i < kRounds; i++) Pause();
    best = std::min(best, NowNs() - start);
  }
  const uint64_t spins = nanoseconds * kRounds / std::max<uint64_t>(best, 1);
  return static_cast<uint32_t>(std::clamp<uint64_t>(spins, 16, 1'000'000));
}

}  // namespace platform
