#pragma once

// Limits, usage and priorities of processes: getrlimit(2), getrusage(2), times(2), getpriority(2).

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> GetRlimit(sentry::Task& task, uint32_t resource, base::UserAddr limit);
base::Result<void> SetRlimit(sentry::Task& task, uint32_t resource, base::UserAddr limit);
base::Result<void> Prlimit64(sentry::Task& task, int32_t pid, uint32_t resource,
                             base::UserAddr new_limit, base::UserAddr old_limit);
base::Result<void> GetRusage(sentry::Task& task, int32_t who, base::UserAddr usage);
base::Result<int64_t> Times(sentry::Task& task, base::UserAddr buffer);
base::Result<int32_t> GetPriority(sentry::Task& task, int32_t which, int32_t who);
base::Result<void> SetPriority(sentry::Task& task, int32_t which, int32_t who, int32_t nice);
base::Result<int32_t> IoPrioGet(sentry::Task& task, int32_t which, int32_t who);
base::Result<void> IoPrioSet(sentry::Task& task, int32_t which, int32_t who, int32_t priority);

}  // namespace syscalls
