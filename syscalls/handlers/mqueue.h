#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> MqOpen(sentry::Task& task, base::UserAddr name, int32_t flags, uint32_t mode,
                             base::UserAddr attributes);
base::Result<void> MqUnlink(sentry::Task& task, base::UserAddr name);
base::Result<void> MqTimedsend(sentry::Task& task, int32_t fd, base::UserAddr data, uint64_t bytes,
                               uint32_t priority, base::UserAddr timeout);
base::Result<uint64_t> MqTimedreceive(sentry::Task& task, int32_t fd, base::UserAddr data,
                                      uint64_t bytes, base::UserAddr priority,
                                      base::UserAddr timeout);
base::Result<void> MqNotify(sentry::Task& task, int32_t fd, base::UserAddr event);
base::Result<void> MqGetsetattr(sentry::Task& task, int32_t fd, base::UserAddr wanted,
                                base::UserAddr old);

}  // namespace syscalls
