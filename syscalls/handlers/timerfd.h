#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "syscalls/abi/time.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> TimerfdCreate(sentry::Task& task, int32_t clock_id, int32_t flags);
base::Result<void> TimerfdSettime(sentry::Task& task, int32_t fd, int32_t flags,
                                  base::UserIn<abi::Itimerspec> setting,
                                  base::UserOut<abi::Itimerspec> old_setting);
base::Result<void> TimerfdGettime(sentry::Task& task, int32_t fd,
                                  base::UserOut<abi::Itimerspec> out);

}  // namespace syscalls
