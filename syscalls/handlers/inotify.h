#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> InotifyInit(sentry::Task& task);
base::Result<int32_t> InotifyInit1(sentry::Task& task, int32_t flags);
base::Result<int32_t> InotifyAddWatch(sentry::Task& task, int32_t fd, base::UserAddr path,
                                      uint32_t mask);
base::Result<void> InotifyRmWatch(sentry::Task& task, int32_t fd, int32_t watch);

}  // namespace syscalls
