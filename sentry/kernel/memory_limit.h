#pragma once

// How much of the host's memory a sandbox may use, and what happens when it wants more: Linux's OOM
// killer (mm/oom_kill.c), for one sandbox.
//
// Guest pages come by faults of the host that the sentry never hears of, so memory cannot be
// charged when it is taken. What the sentry does know is the sum of all ranges it has given out,
// which bounds what can be present. As long as that is below half of the limit nothing is done at
// all. Beyond it a timer looks at what is present, as often as the distance to the limit demands at
// the speed at which a machine can fill pages. Over the limit the process that uses most is killed,
// until there is room again. A little earlier what can be refused is: new processes and threads
// (ENOMEM), and pages for memory files (ENOSPC), which no kill would free.
//
// Processes and threads cost the host memory that is no guest's page; they are charged by estimate,
// and Kernel::tasks_max is made to fit.

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "sentry/time/timer_service.h"

namespace platform {
class PoolWatch;
}

namespace sentry {

class Kernel;
class ThreadGroup;

// What a process and a thread of the guest take from the host beside guest pages: stub process,
// page tables, kernel stacks, the sentry's thread, with all their structures. Measured: README.md.
inline constexpr uint64_t kProcessCostBytes = 192 << 10;
inline constexpr uint64_t kThreadCostBytes = 96 << 10;

// The largest private area that a guest may have (overcommit_memory 0: what can never be there is
// refused).
uint64_t CommitBytes(const Kernel& kernel);

// Tasks that fit into a quarter of the limit, of `wanted` at most. 0 bytes: no limit.
uint64_t TasksWithin(uint64_t limit_bytes, uint64_t wanted);

// Linux's badness of a process in thousandths of `total_bytes`, oom_score_adj included; negative:
// never to be killed.
int64_t OomPoints(ThreadGroup& group, uint64_t total_bytes);

class MemoryLimit {
 public:
  // 0: no limit. `kernel` outlives it.
  MemoryLimit(Kernel& kernel, uint64_t limit_bytes);
  ~MemoryLimit();
  MemoryLimit(const MemoryLimit&) = delete;
  MemoryLimit& operator=(const MemoryLimit&) = delete;

  // Present pages of the pool, what tasks cost, the sentry's own heap.
  uint64_t charged_bytes() const;
  uint64_t kills() const { return kills_.load(std::memory_order_relaxed); }
  // On the timer's thread; public for tests.
  void Look();

 private:
  // Kills the worst processes, as many as the excess takes, unless the last ones are still on their
  // way out.
  void Kill(uint64_t charged);
  // One, and all who share its memory.
  void KillOne(const std::shared_ptr<ThreadGroup>& group, uint64_t charged);
  void Await(int64_t wait_ns);

  Kernel& kernel_;
  platform::PoolWatch& watch_;
  const uint64_t limit_bytes_;
  std::atomic<uint64_t> kills_{0};
  // Only looked at by the timer's thread.
  std::vector<std::weak_ptr<ThreadGroup>> victims_;
  int64_t victim_since_ns_ = 0;
  std::unique_ptr<Timer> timer_;  // The last: its callback uses the rest.
};

}  // namespace sentry
