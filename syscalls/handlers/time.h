#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "syscalls/abi/time.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> ClockGettime(sentry::Task& task, int32_t clock_id,
                                base::UserOut<abi::Timespec> out);
base::Result<void> ClockSettime(sentry::Task& task, int32_t clock_id,
                                base::UserIn<abi::Timespec> time);
base::Result<void> ClockGetres(sentry::Task& task, int32_t clock_id,
                               base::UserOut<abi::Timespec> out);
base::Result<uint64_t> ClockNanosleep(sentry::Task& task, int32_t clock_id, int32_t flags,
                                      base::UserIn<abi::Timespec> request,
                                      base::UserOut<abi::Timespec> remaining);
base::Result<uint64_t> Nanosleep(sentry::Task& task, base::UserIn<abi::Timespec> request,
                                 base::UserOut<abi::Timespec> remaining);
base::Result<void> Gettimeofday(sentry::Task& task, base::UserOut<abi::Timeval> time,
                                base::UserOut<abi::Timezone> zone);
base::Result<void> Settimeofday(sentry::Task& task, base::UserIn<abi::Timeval> time,
                                base::UserIn<abi::Timezone> zone);
base::Result<uint64_t> Time(sentry::Task& task, base::UserOut<int64_t> out);
base::Result<uint64_t> Adjtimex(sentry::Task& task, base::UserInOut<abi::Timex> timex);
base::Result<uint64_t> ClockAdjtime(sentry::Task& task, int32_t clock_id,
                                    base::UserInOut<abi::Timex> timex);

}  // namespace syscalls
