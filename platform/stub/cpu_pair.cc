#include "platform/stub/cpu_pair.h"

namespace platform {

CpuSet::CpuSet() {
  CPU_ZERO(&all_);
  // On failure (more CPUs than the set has room for) the set stays empty, and nobody is paired.
  sched_getaffinity(0, sizeof(all_), &all_);
}

int CpuSet::Take(int preferred) {
  int best = -1;
  uint32_t fewest = UINT32_MAX;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(static_cast<size_t>(cpu), &all_)) continue;
    const uint32_t pairs = pairs_[static_cast<size_t>(cpu)].load(std::memory_order_relaxed);
    if (pairs < fewest || (pairs == fewest && cpu == preferred)) {
      best = cpu;
      fewest = pairs;
    }
  }
  if (best >= 0) pairs_[static_cast<size_t>(best)].fetch_add(1, std::memory_order_relaxed);
  return best;
}

void CpuSet::Return(int cpu) {
  pairs_[static_cast<size_t>(cpu)].fetch_sub(1, std::memory_order_relaxed);
}

// Nothing here is needed for correctness, and each call may fail (a thread that died, a cpuset that
// changed): then the pair is merely slower.

void CpuPair::Adopt() { sched_setaffinity(0, sizeof(cpu_set_t), &cpus_.all()); }

void CpuPair::Join(pid_t thread) {
  const int cpu = cpus_.Take(sched_getcpu());
  if (cpu < 0) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<size_t>(cpu), &one);
  sched_setaffinity(thread, sizeof(one), &one);
  sched_setaffinity(0, sizeof(one), &one);
  thread_ = thread;
  cpu_ = cpu;
}

void CpuPair::Part() {
  if (thread_ == 0) return;
  sched_setaffinity(thread_, sizeof(cpu_set_t), &cpus_.all());
  sched_setaffinity(0, sizeof(cpu_set_t), &cpus_.all());
  cpus_.Return(cpu_);
  thread_ = 0;
}

}  // namespace platform
