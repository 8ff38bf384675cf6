#include "platform/systrap/handover_policy.h"

#include <sched.h>

#include <algorithm>

#include "platform/stub/futex.h"

namespace platform {
namespace {

constexpr uint64_t kSpinNs = 20'000;
constexpr uint32_t kYieldsWhenBusy = 8;
constexpr uint32_t kYieldsWhenFree = 4;

uint32_t UsableCpus() {
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0) return 1;
  return static_cast<uint32_t>(std::max(CPU_COUNT(&cpus), 1));
}

}  // namespace

HandoverPolicy::HandoverPolicy() : cpus_(UsableCpus()), spins_(SpinsFor(kSpinNs)) {}

HandoverPolicy::Patience HandoverPolicy::Enter() {
  const uint32_t pairs = in_guest_.fetch_add(1, std::memory_order_relaxed) + 1;
  if (2 * pairs <= cpus_) return {.spins = spins_, .yields = kYieldsWhenFree};
  return {.spins = 0, .yields = kYieldsWhenBusy};
}

}  // namespace platform
