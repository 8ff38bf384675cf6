#include "platform/stub/cpu_pair.h"

#include <ctime>

namespace platform {
namespace {

constexpr uint64_t kStayNs = 8'000'000;

// How the thread is bound to a CPU at the moment.
thread_local bool t_switches = false;    // It has been adopted by a CpuPair.
thread_local bool t_joined = false;      // By a CpuPair.
thread_local uint64_t t_stay_until = 0;  // By StayOnCpu; 0: not.

// Cheap and coarse: milliseconds are enough.
uint64_t CoarseNowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

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

// No change of a thread's CPUs is needed for correctness, and each may fail (a thread that died, a
// cpuset that changed): then things are merely slower.

void CpuSet::Free(pid_t thread) const { sched_setaffinity(thread, sizeof(all_), &all_); }

void PinThread(pid_t thread, int cpu) {
  if (cpu < 0 || cpu >= CPU_SETSIZE) return;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<size_t>(cpu), &one);
  sched_setaffinity(thread, sizeof(one), &one);
}

int StayOnCpu() {
  const int cpu = sched_getcpu();
  if (!t_switches || t_joined || t_stay_until != 0) return cpu;
  PinThread(0, cpu);
  t_stay_until = CoarseNowNs() + kStayNs;
  return cpu;
}

void LeaveCpu(const CpuSet& cpus) {
  if (t_stay_until == 0 || CoarseNowNs() < t_stay_until) return;
  t_stay_until = 0;
  if (!t_joined) cpus.Free(0);
}

void CpuPair::Adopt() {
  cpus_.Free(0);
  t_switches = true;
  t_stay_until = 0;
}

void CpuPair::Join(pid_t thread) {
  const int cpu = cpus_.Take(sched_getcpu());
  if (cpu < 0) return;
  PinThread(thread, cpu);
  PinThread(0, cpu);
  thread_ = thread;
  cpu_ = cpu;
  t_joined = true;
  t_stay_until = 0;
}

void CpuPair::Part() {
  if (t_stay_until != 0) {
    t_stay_until = 0;
    cpus_.Free(0);
  }
  if (thread_ == 0) return;
  cpus_.Free(thread_);
  cpus_.Free(0);
  cpus_.Return(cpu_);
  thread_ = 0;
  t_joined = false;
}

}  // namespace platform
