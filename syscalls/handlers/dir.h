#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<uint64_t> Getdents(sentry::Task& task, int32_t fd, base::UserAddr buffer,
                                uint32_t size);
base::Result<uint64_t> Getdents64(sentry::Task& task, int32_t fd, base::UserAddr buffer,
                                  uint32_t size);

}  // namespace syscalls
