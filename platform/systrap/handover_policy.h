#pragma once

// How long the two threads of a pair (a sentry thread and its guest thread) look for each other before they
// sleep.
//
// A sleeping wake-up across CPUs costs 50 us on a VM, a hand-over between two spinning threads 0.2 us.
// But a thread that spins while every CPU is taken keeps its own partner from running. So: spin
// while each pair can have two CPUs, else yield a few times, which hands the CPU to the partner if it
// waits for this one; always sleep in the end, so that an idle sandbox uses no CPU.

#include <atomic>
#include <cstdint>

namespace platform {

class HandoverPolicy {
 public:
  struct Patience {
    uint32_t spins = 0;
    uint32_t yields = 0;
  };

  // Measures; at start-up.
  HandoverPolicy();

  // Around each stay in the guest. Enter returns what both sides shall do before they sleep.
  Patience Enter();
  void Leave() { in_guest_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  const uint32_t cpus_;
  const uint32_t spins_;
  std::atomic<uint32_t> in_guest_ = 0;
};

}  // namespace platform
