#pragma once

// Keeps a sentry thread and the guest thread that it waits for on one CPU.
//
// They never run at the same time unless they spin, and a wake-up on the same CPU costs 3-5 us
// where one across CPUs costs 50 us on a VM. The scheduler prefers an idle CPU every time, so we
// have to insist; but not for long, since a pair that stays where it is may share its CPU with
// another while the next one idles.

#include <sched.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>

namespace platform {

// The CPUs that a platform's threads may use, and how many pairs each has.
class CpuSet {
 public:
  // What the calling thread may use now.
  CpuSet();
  // The CPU with the fewest pairs, `preferred` if it is one of them; counts the new pair. -1:
  // unknown.
  int Take(int preferred);
  void Return(int cpu);
  // Lets `thread` (0: the caller) run on any of the CPUs.
  void Free(pid_t thread) const;

  // What the contexts have found out last: does spinning pay? New ones begin with that.
  bool spinning_pays() const { return spinning_pays_.load(std::memory_order_relaxed); }
  void set_spinning_pays(bool pays) { spinning_pays_.store(pays, std::memory_order_relaxed); }

 private:
  cpu_set_t all_;
  std::array<std::atomic<uint32_t>, CPU_SETSIZE> pairs_{};
  std::atomic<bool> spinning_pays_ = true;
};

// Keeps `thread` (0: the caller) on `cpu`.
void PinThread(pid_t thread, int cpu);

// Keeps the calling thread, if it has switched before, on the CPU that it is on, and returns that
// CPU. Each change costs 2 us, so the thread stays for some milliseconds, until LeaveCpu finds that
// they are over (or its pair ends). Threads that never switch are left alone: nobody would free
// them.
int StayOnCpu();
void LeaveCpu(const CpuSet& cpus);

class CpuPair {
 public:
  // `cpus` must outlive the pair.
  explicit CpuPair(CpuSet& cpus) : cpus_(cpus) {}
  ~CpuPair() { Part(); }
  CpuPair(const CpuPair&) = delete;
  CpuPair& operator=(const CpuPair&) = delete;

  bool joined() const { return thread_ != 0; }
  // Once per pair, on its host thread: frees it from the CPU of a pair that its creator was in
  // (Linux gives a new thread its creator's CPUs).
  void Adopt();
  // Puts the calling thread and `thread` on one CPU, the caller's if no other has fewer pairs.
  void Join(pid_t thread);
  // Lets both go. On the thread that called Join. Ends its StayOnCpu, too.
  void Part();

 private:
  CpuSet& cpus_;
  pid_t thread_ = 0;
  int cpu_ = -1;
};

}  // namespace platform
