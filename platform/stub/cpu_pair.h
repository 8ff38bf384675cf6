#pragma once

// Where a sentry thread and the guest thread that it waits for run.
//
// Two threads that spin on two CPUs hand over in 0.2 us, two on one CPU in 2-4 us, and a wake-up of
// a thread that sleeps on another CPU costs 25 us to the waker and 40 us more until it runs (on a
// VM, whose interrupts leave it). The scheduler knows none of this: left alone, it keeps two
// threads that hand over to each other on one CPU while they spin, and spreads them when they
// sleep, so both are wrong. So a pair is told where to be: together on one CPU, or apart on two.

#include <sched.h>
#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>

namespace platform {

// The CPUs that a platform's threads may use, and how many pairs are busy on each.
class CpuSet {
 public:
  // What the calling thread may use now.
  CpuSet();
  // The CPU with the fewest busy pairs, `preferred` if it is one of them. -1: unknown.
  int Quietest(int preferred) const;
  // A CPU without any busy pair, other than `cpu`; -1: none.
  int QuietBeside(int cpu) const;
  bool Has(int cpu) const;
  uint32_t pairs(int cpu) const { return Count(cpu).load(std::memory_order_relaxed); }
  void Take(int cpu) { Count(cpu).fetch_add(1, std::memory_order_relaxed); }
  void Return(int cpu) { Count(cpu).fetch_sub(1, std::memory_order_relaxed); }
  // Lets `thread` (0: the caller) run on any of the CPUs.
  void Free(pid_t thread) const;

  // Other programs keep the CPUs busy, too, which nobody tells us. So pairs go apart on trial, and
  // when a trial finds its second CPU busy, all wait with the next one: twice as long each time.
  bool MayTry(uint64_t now_ns) const {
    return now_ns >= next_trial_ns_.load(std::memory_order_relaxed);
  }
  void TrialFailed(uint64_t now_ns);
  void TrialSucceeded() { trial_pause_ns_.store(kTrialPauseMinNs, std::memory_order_relaxed); }

 private:
  static constexpr uint64_t kTrialPauseMinNs = 1'000'000;
  static constexpr uint64_t kTrialPauseMaxNs = 64'000'000;

  std::atomic<uint32_t>& Count(int cpu) { return pairs_[static_cast<size_t>(cpu)]; }
  const std::atomic<uint32_t>& Count(int cpu) const { return pairs_[static_cast<size_t>(cpu)]; }

  cpu_set_t all_;
  int end_ = 0;  // One past the last of them.
  std::array<std::atomic<uint32_t>, CPU_SETSIZE> pairs_{};
  std::atomic<uint64_t> next_trial_ns_ = 0;
  std::atomic<uint64_t> trial_pause_ns_ = kTrialPauseMinNs;
};

// Keeps `thread` (0: the caller) on `cpu`.
void PinThread(pid_t thread, int cpu);

// Keeps the calling thread, if it has switched before, on the CPU that it is on, and returns that
// CPU. Each change costs 1 us, so the thread stays for some milliseconds, until LeaveCpu finds that
// they are over (or its pair ends). Threads that never switch are left alone: nobody would free
// them.
int StayOnCpu();
void LeaveCpu(const CpuSet& cpus);

class CpuPair {
 public:
  enum class Place : uint8_t {
    kFree,      // Wherever the scheduler puts them,
    kTogether,  // on one CPU,
    kApart,     // on two.
    kLoose,     // The guest thread is free; the sentry's waits where it last ran.
  };

  // `cpus` must outlive the pair.
  explicit CpuPair(CpuSet& cpus) : cpus_(cpus) {}
  // Frees the sentry's thread, if it was adopted.
  ~CpuPair();
  CpuPair(const CpuPair&) = delete;
  CpuPair& operator=(const CpuPair&) = delete;

  Place place() const { return place_; }
  // No other pair is busy on this CPU.
  bool alone() const { return cpu_ < 0 || cpus_.pairs(cpu_) <= 1; }
  // Another CPU has so few busy pairs that this one would better be there.
  bool Crowded() const;

  // All on the sentry's thread of the pair.

  // Once per pair, before all else. The thread may still be kept on the CPU of a pair that its
  // creator was in (Linux gives a new thread its creator's CPUs): Join or Part comes next.
  void Adopt();
  // Puts the caller and `thread` on one CPU: `wanted`, or if that is -1, the quietest.
  void Join(pid_t thread, int wanted);
  // Puts `thread` on a CPU of its own. False, and nothing has changed: there is none.
  bool Separate(pid_t thread);
  // Lets the guest thread go where it likes, for it will compute.
  void Loosen();
  // Lets both go.
  void Part();
  // Likewise, but leaves them where they are: who uses the guest thread next will put it somewhere.
  void Leave();
  // The sentry's thread goes to sleep for the guest's call: its CPUs count as quiet until it is
  // back.
  void Blocks();
  void Unblocks();

  // Any thread: it is about to wake the sentry's thread of this pair. If it is a pair's thread,
  // too, that usually goes to sleep soon after it has woken somebody (two that take turns: Linux
  // calls such a wake-up synchronous), this pair comes to its CPU.
  void Invite();

 private:
  void Count();
  void Uncount();

  CpuSet& cpus_;
  pid_t thread_ = 0;
  Place place_ = Place::kFree;
  bool counted_ = false;
  int cpu_ = -1;        // The sentry's.
  int guest_cpu_ = -1;  // Another one, if they are apart.

  // For whoever invites; -1: not together.
  std::atomic<int> home_ = -1;
  std::atomic<int> invited_to_ = -1;
  std::atomic<pid_t> own_tid_ = 0;
};

}  // namespace platform
