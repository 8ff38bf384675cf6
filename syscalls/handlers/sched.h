#pragma once

// sched(7). Policies, priorities and affinity are kept and reported; the host schedules the sandbox
// as it sees fit.

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> SchedYield(sentry::Task& task);
base::Result<int32_t> SchedGetAffinity(sentry::Task& task, int32_t tid, uint32_t bytes,
                                       base::UserAddr mask);
base::Result<void> SchedSetAffinity(sentry::Task& task, int32_t tid, uint32_t bytes,
                                    base::UserAddr mask);
base::Result<int32_t> SchedGetScheduler(sentry::Task& task, int32_t tid);
base::Result<void> SchedSetScheduler(sentry::Task& task, int32_t tid, int32_t policy,
                                     base::UserAddr parameters);
base::Result<void> SchedGetParam(sentry::Task& task, int32_t tid, base::UserAddr parameters);
base::Result<void> SchedSetParam(sentry::Task& task, int32_t tid, base::UserAddr parameters);
base::Result<int32_t> SchedGetPriorityMax(sentry::Task& task, int32_t policy);
base::Result<int32_t> SchedGetPriorityMin(sentry::Task& task, int32_t policy);
base::Result<void> SchedRrGetInterval(sentry::Task& task, int32_t tid, base::UserAddr interval);
base::Result<void> SchedGetAttr(sentry::Task& task, int32_t tid, base::UserAddr attributes,
                                uint32_t size, uint32_t flags);
base::Result<void> SchedSetAttr(sentry::Task& task, int32_t tid, base::UserAddr attributes,
                                uint32_t flags);
base::Result<void> GetCpu(sentry::Task& task, base::UserAddr cpu, base::UserAddr node);

}  // namespace syscalls
