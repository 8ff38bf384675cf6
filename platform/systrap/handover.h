#pragma once

// How the two threads of a pair (a sentry thread and its guest thread) look for each other: the
// whole policy is here.
//
// Two threads that spin on two CPUs hand over in 0.2 us; a sleeping wake-up across CPUs costs 50 us
// on a VM; one on the same CPU 3-5 us. Spinning only works if both really have a CPU, which nobody
// tells us, so we try: as long as most events come while we spin, we go on; when too many come only
// after we fell asleep, the pair is put on one CPU and sleeps at once. That lasts for a while, then
// it is tried anew; the while doubles each time the trial fails. A new context begins with what
// others found last. A guest that computes for long is let go: its thread must be free to move.
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
  };
  // How long both sides spin.
  static constexpr uint64_t kSpinNs = 20'000;
  // Longer stays in the guest are computation, not a slow hand-over.
  static constexpr uint64_t kLongNs = 2'000'000;

  // `spins` is kSpinNs' worth, or 0 to pair always. `cpus` must outlive this.
  Handover(CpuSet& cpus, uint32_t spins);

  // Before the guest thread `thread` goes on: what both sides shall do.
  Patience Enter(pid_t thread);
  // The event came while we spun,
  void Spun();
  // or after we had slept for so long,
  void Slept(uint64_t ns);
  // or has not come for kLongNs and we go on sleeping.
  void Long();
  // The context gets another guest thread.
  void Reset() { pair_.Part(); }

 private:
  CpuSet& cpus_;
  CpuPair pair_;
  bool adopted_ = false;
  const uint32_t spins_;
  uint32_t disappointment_ = 0;  // Grows with each event that spinning did not see.
  uint64_t pair_until_ns_ = 0;
  uint64_t pair_for_ns_ = kPairForMinNs;
  uint32_t hits_ = 0;  // Since the last miss.

  static constexpr uint64_t kPairForMinNs = 16'000'000;
  static constexpr uint64_t kPairForMaxNs = 512'000'000;
};

}  // namespace platform
