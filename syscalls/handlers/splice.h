#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<uint64_t> Splice(sentry::Task& task, int32_t in_fd, base::UserInOut<int64_t> in_offset,
                              int32_t out_fd, base::UserInOut<int64_t> out_offset, uint64_t length,
                              uint32_t flags);
base::Result<uint64_t> Tee(sentry::Task& task, int32_t in_fd, int32_t out_fd, uint64_t length,
                           uint32_t flags);
base::Result<uint64_t> Vmsplice(sentry::Task& task, int32_t fd, base::UserAddr ranges,
                                uint64_t count, uint32_t flags);

}  // namespace syscalls
