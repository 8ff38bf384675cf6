#pragma once

// clockid_t of the guest: the clocks of clock_gettime(2), CPU-time clocks of any process and thread
// included.

#include <cstdint>
#include <memory>
#include <optional>

#include "platform/base/result.h"

namespace sentry {
class Task;
class ThreadGroup;
}  // namespace sentry

namespace syscalls {

struct ClockKind {
  enum class Base : uint8_t { kRealtime, kMonotonic, kProcessCpu, kThreadCpu };
  Base base = Base::kRealtime;
  bool user_only = false;                      // CPUCLOCK_VIRT
  bool coarse = false;                         // Or raw: may be read, but not waited for.
  bool alarm = false;                          // Wakes the machine up.
  std::shared_ptr<sentry::ThreadGroup> group;  // kProcessCpu
  std::shared_ptr<sentry::Task> thread;        // kThreadCpu
  bool is_cpu() const { return base == Base::kProcessCpu || base == Base::kThreadCpu; }
};

// EINVAL for what is no clock, or names no process or thread.
base::Result<ClockKind> ResolveClock(sentry::Task& task, int32_t clock_id);
int64_t ReadClock(sentry::Task& task, const ClockKind& kind);

}  // namespace syscalls
