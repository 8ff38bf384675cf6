#pragma once

// How the two threads of a pair (a sentry thread and its guest thread) look for each other: the
// whole policy is here.
//
// What it costs is in cpu_pair.h: 0.2 us for a hand-over between two threads that spin on two CPUs,
// 2-4 us on one, some 65 us for a wake-up across CPUs. So
//  - a pair begins together on one CPU, where both yield a few times, then sleep;
//  - when calls come thick and fast and no other pair is busy on the second CPU, it goes apart, and
//    both spin. A hand-over that comes while they spin is a point won, one that finds the other
//    side asleep loses what some 35 of them have gained. When nothing is left the pair goes
//    together again, and has to show a longer series of calls before the next try;
//  - a guest thread that has not even noticed its turn when we have spun in vain has no CPU: the
//    pair is together again at once, and the next trial of any pair waits (CpuSet::MayTry);
//  - a guest that computes for long is let go: its thread must be free to move.
//
// Either way both sides sleep in the end, so that an idle sandbox uses no CPU.

#include <sys/types.h>

#include <cstdint>

#include "platform/stub/cpu_pair.h"

namespace platform {

class Handover {
 public:
  struct Patience {
    uint32_t spins = 0;   // Looks before yielding,
    uint32_t yields = 0;  // and yields before sleeping.
    uint32_t rounds = 1;  // Of the sentry's looks: the guest thread may have to be woken first.
  };
  // How long both sides spin: about what it costs to wake one that sleeps.
  static constexpr uint64_t kSpinNs = 50'000;
  // Longer stays in the guest are computation, not a slow hand-over.
  static constexpr uint64_t kLongNs = 2'000'000;

  // `spins` is kSpinNs' worth, or 0 to have the pair together always. `cpus` must outlive this.
  Handover(CpuSet& cpus, uint32_t spins) : cpus_(cpus), pair_(cpus), spins_(spins) {}

  // Before the guest thread `thread` goes on: what both sides shall do. `sleeps`: it is asleep;
  // `cpu`: where it says that it last handed over to a sleeping sentry (it may lie).
  Patience Enter(pid_t thread, bool sleeps, int cpu);
  // The event came while we spun.
  void Spun() {
    if (score_ < kScoreMax && ++score_ == kScoreMax) Proven();
  }
  // It did not come while we spun. `noticed`: the guest has its turn, and works. Says how to go on.
  Patience Missed(pid_t thread, bool noticed);
  // It came so long after we began to yield,
  void Yielded(uint64_t ns) {
    if (ns > kYieldedLongNs && pair_.alone()) quiet_calls_ = kQuietCalls;
  }
  // or to sleep,
  void Slept(uint64_t ns);
  // or has not come for kLongNs and we go on sleeping. Says what the guest thread shall do then.
  Patience Long();
  // The sentry thread sleeps for the guest's call, and is back.
  // True: on its CPU others may want to run, so the guest thread shall not wait for it awake.
  bool Blocks() {
    pair_.Blocks();
    return pair_.place() == Place::kTogether;
  }
  void Unblocks() { pair_.Unblocks(); }
  // Any thread: the caller wakes the sentry thread that sleeps for the guest's call.
  void Waking() { pair_.Invite(); }
  // The guest begins another program: what has run so far says nothing about it.
  void Restart() { restarts_ = true; }
  // The context gets another guest thread.
  void Reset() { pair_.Leave(); }

 private:
  using Place = CpuPair::Place;

  static constexpr int32_t kMissWeight = 35;
  static constexpr int32_t kScoreAtFirst = 2 * kMissWeight;
  static constexpr int32_t kScoreMax = 8 * kMissWeight;
  // Who yields gives up the rest of the time that the scheduler meant for it, to whoever else wants
  // this CPU; and who sleeps does not. So when yielding takes as long as that, we rather sleep. But
  // if it may have been other pairs, which hand over as we do: among them yielding is cheaper.
  static constexpr uint64_t kYieldedLongNs = 200'000;
  static constexpr uint32_t kQuietCalls = 500;
  static constexpr uint32_t kSeriesMin = 64;
  static constexpr uint32_t kSeriesMax = 8192;

  Patience Now() const;
  // Some more calls have been made on one CPU: is it time for something else? True: they are apart.
  bool Consider(pid_t thread);
  void Together(pid_t thread, int cpu);
  void Proven();

  CpuSet& cpus_;
  CpuPair pair_;
  bool adopted_ = false;
  bool restarts_ = false;
  const uint32_t spins_;
  int32_t score_ = 0;  // While apart.
  // While together.
  uint32_t calls_ = 0;           // Since
  uint64_t calls_since_ns_ = 0;  // this time,
  uint32_t series_ = 0;          // and those that came thick and fast before.
  uint32_t series_wanted_ = kSeriesMin;
  uint32_t quiet_calls_ = 0;  // So many more without yielding.
  uint32_t crowded_ = 0;      // How often in a row there were too many pairs here.
};

}  // namespace platform
