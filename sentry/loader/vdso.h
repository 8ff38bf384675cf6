#pragma once

// The vDSO: a small shared library of ours in each guest program, which tells the time without a system call, and the page of
// clock parameters that it reads (see vdso/vvar.h).

#include <cstdint>
#include <memory>

#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "sentry/time/clock.h"

namespace sentry {

class MemoryManager;

class Vdso {
 public:
  // `pool` and `clock` outlive it. ENOMEM. Clock parameters are not published until Update.
  static base::Result<std::shared_ptr<Vdso>> Create(platform::MemoryPool& pool, const Clock& clock);
  virtual ~Vdso() = default;

  // Maps [vvar] and [vdso]; the address of the library's ELF header. ENOMEM.
  virtual base::Result<uint64_t> MapInto(MemoryManager& memory) = 0;
  // Where a signal handler returns to, relative to that address.
  virtual uint64_t sigreturn_offset() const = 0;
  // Compares the counter with the clock again if the last time is long enough ago. Cheap otherwise; any
  // thread. Called when a guest asks the sentry for the time and when a program starts.
  virtual void Update() = 0;
};

}  // namespace sentry
