#include "syscalls/handlers/time_values.h"

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"

namespace syscalls {

using base::Errno;
using base::Result;

namespace {

int64_t Saturated(int64_t seconds, int64_t ns) {
  int64_t total = 0;
  if (__builtin_mul_overflow(seconds, kNsPerSecond, &total) ||
      __builtin_add_overflow(total, ns, &total))
    return kNsMax;
  return total;
}

}  // namespace

Result<int64_t> ToNs(const abi::Timespec& time) {
  if (time.tv_sec < 0 || time.tv_nsec < 0 || time.tv_nsec >= kNsPerSecond) return Errno(EINVAL);
  return Saturated(time.tv_sec, time.tv_nsec);
}

Result<int64_t> ToNs(const abi::Timeval& time) {
  if (time.tv_sec < 0 || time.tv_usec < 0 || time.tv_usec >= 1'000'000) return Errno(EINVAL);
  return Saturated(time.tv_sec, time.tv_usec * 1000);
}

abi::Timespec ToTimespec(int64_t ns) { return {ns / kNsPerSecond, ns % kNsPerSecond}; }
abi::Timeval ToTimeval(int64_t ns) { return {ns / kNsPerSecond, ns % kNsPerSecond / 1000}; }

sentry::Deadline DeadlineAfter(const sentry::Clock& clock, int64_t ns) {
  int64_t at = 0;
  if (__builtin_add_overflow(clock.MonotonicNs(), ns, &at)) return sentry::Deadline::Never();
  return sentry::Deadline::At(at);
}

sentry::Deadline DeadlineAt(const sentry::Clock& clock, clockid_t clock_id, int64_t ns) {
  if (ns == kNsMax) return sentry::Deadline::Never();
  if (clock_id != CLOCK_REALTIME && clock_id != CLOCK_REALTIME_ALARM && clock_id != CLOCK_TAI) {
    return sentry::Deadline::At(ns);
  }
  // Times before the Epoch of the monotonic clock have passed as well as any.
  const int64_t realtime_ahead = clock.RealtimeNs() - clock.MonotonicNs();
  return sentry::Deadline::At(ns > realtime_ahead ? ns - realtime_ahead : 0);
}

Result<sentry::Deadline> RelativeDeadline(sentry::Task& task, base::UserIn<abi::Timespec> timeout) {
  if (timeout.is_null()) return sentry::Deadline::Never();
  const abi::Timespec value = TRY(task.CopyIn(timeout));
  return DeadlineAfter(task.kernel().clock(), TRY(ToNs(value)));
}

}  // namespace syscalls
