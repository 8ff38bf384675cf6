#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> AddKey(sentry::Task& task, base::UserAddr type, base::UserAddr description,
                             base::UserAddr payload, uint64_t bytes, int32_t keyring);
base::Result<int32_t> RequestKey(sentry::Task& task, base::UserAddr type,
                                 base::UserAddr description, base::UserAddr callout,
                                 int32_t destination);
base::Result<int64_t> Keyctl(sentry::Task& task, int32_t operation, uint64_t arg2, uint64_t arg3,
                             uint64_t arg4, uint64_t arg5);

}  // namespace syscalls
