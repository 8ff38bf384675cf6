#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "syscalls/abi/time.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> Getitimer(sentry::Task& task, int32_t which, base::UserOut<abi::Itimerval> out);
base::Result<void> Setitimer(sentry::Task& task, int32_t which,
                             base::UserIn<abi::Itimerval> setting,
                             base::UserOut<abi::Itimerval> old_setting);
base::Result<uint64_t> Alarm(sentry::Task& task, uint32_t seconds);
base::Result<void> TimerCreate(sentry::Task& task, int32_t clock_id,
                               base::UserIn<abi::Sigevent> event, base::UserOut<int32_t> id);
base::Result<void> TimerSettime(sentry::Task& task, int32_t id, int32_t flags,
                                base::UserIn<abi::Itimerspec> setting,
                                base::UserOut<abi::Itimerspec> old_setting);
base::Result<void> TimerGettime(sentry::Task& task, int32_t id, base::UserOut<abi::Itimerspec> out);
base::Result<uint64_t> TimerGetoverrun(sentry::Task& task, int32_t id);
base::Result<void> TimerDelete(sentry::Task& task, int32_t id);

}  // namespace syscalls
