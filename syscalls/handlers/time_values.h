#pragma once

// Times as guests write them, and as the sentry counts them: nanoseconds in 64 bits, cut at the
// largest.

#include <time.h>

#include <cstdint>
#include <limits>
#include <optional>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "sentry/time/clock.h"
#include "syscalls/abi/time.h"

namespace sentry {
class Task;
}

namespace syscalls {

inline constexpr int64_t kNsPerSecond = 1'000'000'000;
inline constexpr int64_t kNsMax = std::numeric_limits<int64_t>::max();

// EINVAL for negative seconds or nanoseconds out of range.
base::Result<int64_t> ToNs(const abi::Timespec& time);
base::Result<int64_t> ToNs(const abi::Timeval& time);
abi::Timespec ToTimespec(int64_t ns);
abi::Timeval ToTimeval(int64_t ns);

// Never, if the sum is beyond what fits.
sentry::Deadline DeadlineAfter(const sentry::Clock& clock, int64_t ns);
// `clock_id`: CLOCK_REALTIME (or _ALARM, TAI) or one of the monotonic ones.
sentry::Deadline DeadlineAt(const sentry::Clock& clock, clockid_t clock_id, int64_t ns);

// A relative time-out that may be absent: never, if `timeout` is null. EFAULT, EINVAL.
base::Result<sentry::Deadline> RelativeDeadline(sentry::Task& task,
                                                base::UserIn<abi::Timespec> timeout);

}  // namespace syscalls
