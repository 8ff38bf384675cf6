#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> Sysfs(sentry::Task& task, int32_t option, uint64_t first, uint64_t second);
base::Result<void> Vhangup(sentry::Task& task);
base::Result<void> ProcessMrelease(sentry::Task& task, int32_t pidfd, uint32_t flags);
base::Result<void> Cachestat(sentry::Task& task, int32_t fd, base::UserAddr range,
                             base::UserAddr answer, uint32_t flags);

}  // namespace syscalls
