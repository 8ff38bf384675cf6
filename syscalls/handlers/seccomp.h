#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<uint64_t> SeccompCall(sentry::Task& task, uint32_t operation, uint32_t flags,
                                   base::UserAddr argument);
// prctl(PR_SET_SECCOMP).
base::Result<uint64_t> SetSeccomp(sentry::Task& task, uint64_t mode, base::UserAddr program);

}  // namespace syscalls
