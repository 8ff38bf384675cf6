#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> Signalfd(sentry::Task& task, int32_t fd, base::UserIn<uint64_t> mask,
                               uint64_t mask_bytes);
base::Result<int32_t> Signalfd4(sentry::Task& task, int32_t fd, base::UserIn<uint64_t> mask,
                                uint64_t mask_bytes, int32_t flags);

}  // namespace syscalls
