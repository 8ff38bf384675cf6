#pragma once

// The vDSO: a small shared library of ours in each guest program (vdso/vdso.c), which tells the
// time without a system call, and the page of clock parameters that it reads (vdso/vvar.h).
//
// The parameters are a straight line through the host's clock, in ticks of the CPU's counter, good
// for a while. The line is not the host's clock: that one is steered. For time to never run
// backwards between the vDSO and a system call, both read the line: so a Vdso is a Clock too, the
// one to give to the Kernel. Whoever finds the line too old draws a new one; nobody does while
// nobody asks, and so an idle sandbox stays idle.

#include <cstdint>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "sentry/time/clock.h"

namespace sentry {

class MemoryManager;
class SharedAnonymous;
struct VvarPage;

class Vdso final : public Clock {
 public:
  // The CPU's counter, and whether it runs at one speed, also asleep. A test has its own.
  struct Counter {
    uint64_t (*read)(void* context) = nullptr;
    void* context = nullptr;
    bool usable = false;
  };
  static Counter HostCounter();

  // `pool` and `host` outlive it. ENOMEM.
  static base::Result<std::shared_ptr<Vdso>> Create(platform::MemoryPool& pool, const Clock& host,
                                                    Counter counter = HostCounter());
  ~Vdso() override;
  Vdso(const Vdso&) = delete;
  Vdso& operator=(const Vdso&) = delete;

  // What the guest's vDSO tells at this moment.
  int64_t MonotonicNs() const override;
  int64_t RealtimeNs() const override;

  // Maps [vvar] and [vdso]; the address of the library's ELF header. ENOMEM.
  base::Result<uint64_t> MapInto(MemoryManager& memory) const;

 private:
  // A moment on the counter and on the host's clocks.
  struct Sample {
    uint64_t ticks = 0;
    int64_t monotonic_ns = 0;
    int64_t realtime_ns = 0;
    uint64_t width_ticks = 0;  // The moment is this wide.
  };
  struct Reading {
    int64_t monotonic_ns = 0;
    int64_t realtime_ns = 0;
  };

  Vdso(platform::MemoryPool& pool, const Clock& host, Counter counter);
  base::Result<void> Build();
  Reading Read() const ABSL_LOCKS_EXCLUDED(mu_);
  bool ReadLine(Reading* reading) const;
  // Draws a new line unless another thread has just done so; the time now.
  Reading Renew() const ABSL_LOCKS_EXCLUDED(mu_);
  Sample Take() const;
  void Publish(const VvarPage& line) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  platform::MemoryPool& pool_;
  const Clock& host_;
  const Counter counter_;
  std::shared_ptr<SharedAnonymous> image_;
  std::shared_ptr<SharedAnonymous> vvar_;
  uint64_t image_bytes_ = 0;
  VvarPage* page_ = nullptr;  // In the pool's window; read-only for guests.

  mutable absl::Mutex mu_;
  mutable Sample reference_
      ABSL_GUARDED_BY(mu_);  // The start of the base line for the counter's speed.
  mutable bool usable_ ABSL_GUARDED_BY(mu_) = false;
  mutable int64_t last_ns_ ABSL_GUARDED_BY(mu_) = 0;  // No later answer is smaller.
};

}  // namespace sentry
