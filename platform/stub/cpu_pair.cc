#include "platform/stub/cpu_pair.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "platform/stub/futex.h"

namespace platform {
namespace {

constexpr uint64_t kStayNs = 8'000'000;

// How the thread is bound to a CPU at the moment.
thread_local bool t_switches = false;    // It has been adopted by a CpuPair.
thread_local int t_placed_on = -1;       // By a CpuPair.
thread_local uint64_t t_stay_until = 0;  // By StayOnCpu; 0: not.

// Who wakes others and sleeps so soon afterwards takes turns with them,
constexpr uint64_t kTurnNs = 50'000;
// if it does so most of the time.
constexpr int kTurnsEnough = 4;
constexpr int kTurnsMax = 8;

thread_local uint64_t t_woke_ns = 0;  // 0: nobody since it slept last.
thread_local int t_turns = 0;

void NoteTurn(bool slept_soon) {
  t_turns = slept_soon ? std::min(t_turns + 1, kTurnsMax) : std::max(t_turns - 2, 0);
  t_woke_ns = 0;
}

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
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (Has(cpu)) end_ = cpu + 1;
  }
}

bool CpuSet::Has(int cpu) const {
  return cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(static_cast<size_t>(cpu), &all_);
}

int CpuSet::Quietest(int preferred) const {
  int best = -1;
  uint32_t fewest = UINT32_MAX;
  for (int cpu = 0; cpu < end_; cpu++) {
    if (!Has(cpu)) continue;
    if (pairs(cpu) < fewest || (pairs(cpu) == fewest && cpu == preferred)) {
      best = cpu;
      fewest = pairs(cpu);
    }
  }
  return best;
}

int CpuSet::QuietBeside(int cpu) const {
  // Near ones first: they may share a cache.
  for (int distance = 1; distance < end_; distance++) {
    for (const int other : {cpu ^ distance, cpu - distance, cpu + distance}) {
      if (other != cpu && Has(other) && pairs(other) == 0) return other;
    }
  }
  return -1;
}

void CpuSet::TrialFailed(uint64_t now_ns) {
  const uint64_t pause = trial_pause_ns_.load(std::memory_order_relaxed);
  next_trial_ns_.store(now_ns + pause, std::memory_order_relaxed);
  trial_pause_ns_.store(std::min(2 * pause, kTrialPauseMaxNs), std::memory_order_relaxed);
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
  if (t_placed_on >= 0) return t_placed_on;
  const int cpu = sched_getcpu();
  if (!t_switches || t_stay_until != 0) return cpu;
  PinThread(0, cpu);
  t_stay_until = CoarseNowNs() + kStayNs;
  return cpu;
}

void LeaveCpu(const CpuSet& cpus) {
  if (t_stay_until == 0 || CoarseNowNs() < t_stay_until) return;
  t_stay_until = 0;
  if (t_placed_on < 0) cpus.Free(0);
}

void CpuPair::Count() {
  if (counted_ || cpu_ < 0) return;
  cpus_.Take(cpu_);
  if (guest_cpu_ >= 0) cpus_.Take(guest_cpu_);
  counted_ = true;
}

void CpuPair::Uncount() {
  if (!counted_) return;
  cpus_.Return(cpu_);
  if (guest_cpu_ >= 0) cpus_.Return(guest_cpu_);
  counted_ = false;
}

bool CpuPair::Crowded() const {
  if (place_ != Place::kTogether) return false;
  const int other = cpus_.Quietest(cpu_);
  return other != cpu_ && cpus_.pairs(cpu_) >= cpus_.pairs(other) + 2;
}

CpuPair::~CpuPair() {
  Leave();
  if (own_tid_.load(std::memory_order_relaxed) != 0) cpus_.Free(0);
}

void CpuPair::Adopt() {
  t_switches = true;
  t_placed_on = -1;
  t_stay_until = 0;
  own_tid_.store(static_cast<pid_t>(syscall(SYS_gettid)), std::memory_order_relaxed);
}

void CpuPair::Join(pid_t thread, int wanted) {
  Uncount();
  const int cpu = wanted >= 0 ? wanted : cpus_.Quietest(sched_getcpu());
  if (cpu < 0) return;
  // The guest thread first: nearly always it sleeps or waits behind us, and is moved for nothing.
  PinThread(thread, cpu);
  if (t_placed_on != cpu) PinThread(0, cpu);
  thread_ = thread;
  cpu_ = t_placed_on = cpu;
  guest_cpu_ = -1;
  place_ = Place::kTogether;
  home_.store(cpu, std::memory_order_relaxed);
  t_stay_until = 0;
  Count();
}

bool CpuPair::Separate(pid_t thread) {
  if (cpu_ < 0) return false;
  const int other = cpus_.QuietBeside(cpu_);
  if (other < 0) return false;
  Uncount();
  PinThread(thread, other);
  thread_ = thread;
  guest_cpu_ = other;
  place_ = Place::kApart;
  home_.store(-1, std::memory_order_relaxed);
  Count();
  return true;
}

void CpuPair::Loosen() {
  if (thread_ == 0) return;
  Uncount();
  cpus_.Free(thread_);
  if (guest_cpu_ >= 0) {
    cpu_ = t_placed_on = guest_cpu_;
    guest_cpu_ = -1;
    PinThread(0, cpu_);
  }
  thread_ = 0;
  place_ = Place::kLoose;
  home_.store(-1, std::memory_order_relaxed);
  // What computes counts.
  Count();
}

void CpuPair::Part() {
  cpus_.Free(0);
  if (thread_ != 0) cpus_.Free(thread_);
  Leave();
}

void CpuPair::Leave() {
  Uncount();
  t_stay_until = 0;
  if (place_ != Place::kFree) t_placed_on = -1;
  thread_ = 0;
  cpu_ = guest_cpu_ = -1;
  place_ = Place::kFree;
  home_.store(-1, std::memory_order_relaxed);
}

void CpuPair::Blocks() {
  Uncount();
  if (t_woke_ns != 0) NoteTurn(NowNs() - t_woke_ns < kTurnNs);
}

void CpuPair::Unblocks() {
  const int cpu = invited_to_.exchange(-1, std::memory_order_relaxed);
  if (cpu >= 0 && cpu != cpu_ && place_ == Place::kTogether) {
    // Whoever invited us has moved this thread already.
    t_placed_on = -1;
    Join(thread_, cpu);
  } else {
    Count();
  }
}

void CpuPair::Invite() {
  const int cpu = t_placed_on;
  if (cpu < 0) return;
  if (t_woke_ns != 0) NoteTurn(/*slept_soon=*/false);
  t_woke_ns = NowNs();
  const int home = home_.load(std::memory_order_relaxed);
  if (t_turns < kTurnsEnough || home < 0 || home == cpu) return;
  PinThread(own_tid_.load(std::memory_order_relaxed), cpu);
  invited_to_.store(cpu, std::memory_order_relaxed);
}

}  // namespace platform
