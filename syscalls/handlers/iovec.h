#pragma once

// Buffers of readv(2) and its kin.

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "sentry/mm/io_buffer.h"

namespace sentry {
class Task;
}

namespace syscalls {

inline constexpr uint64_t kIovMax = 1024;             // UIO_MAXIOV
inline constexpr uint64_t kTransferMax = 0x7ffff000;  // MAX_RW_COUNT: what one call moves at most.

// `count` struct iovec at `vectors`, cut to kTransferMax. EINVAL for too many or a negative length;
// EFAULT.
base::Result<sentry::IoBuffer> CopyInVectors(sentry::Task& task, base::UserAddr vectors,
                                             uint64_t count);
// One range, cut likewise. EINVAL for a negative length.
base::Result<sentry::IoBuffer> OneBuffer(sentry::Task& task, base::UserAddr addr, uint64_t length);

}  // namespace syscalls
