#pragma once

// Moving bytes between descriptors and memory.

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<uint64_t> Read(sentry::Task& task, int32_t fd, base::UserAddr buffer, uint64_t count);
base::Result<uint64_t> Write(sentry::Task& task, int32_t fd, base::UserAddr buffer, uint64_t count);
base::Result<uint64_t> Pread64(sentry::Task& task, int32_t fd, base::UserAddr buffer,
                               uint64_t count, int64_t offset);
base::Result<uint64_t> Pwrite64(sentry::Task& task, int32_t fd, base::UserAddr buffer,
                                uint64_t count, int64_t offset);
base::Result<uint64_t> Readv(sentry::Task& task, int32_t fd, base::UserAddr vectors,
                             uint64_t count);
base::Result<uint64_t> Writev(sentry::Task& task, int32_t fd, base::UserAddr vectors,
                              uint64_t count);
base::Result<uint64_t> Preadv(sentry::Task& task, int32_t fd, base::UserAddr vectors,
                              uint64_t count, int64_t offset);
base::Result<uint64_t> Pwritev(sentry::Task& task, int32_t fd, base::UserAddr vectors,
                               uint64_t count, int64_t offset);
base::Result<uint64_t> Preadv2(sentry::Task& task, int32_t fd, base::UserAddr vectors,
                               uint64_t count, int64_t offset, uint64_t offset_high, int32_t flags);
base::Result<uint64_t> Pwritev2(sentry::Task& task, int32_t fd, base::UserAddr vectors,
                                uint64_t count, int64_t offset, uint64_t offset_high,
                                int32_t flags);
base::Result<uint64_t> Lseek(sentry::Task& task, int32_t fd, int64_t offset, uint32_t whence);
base::Result<uint64_t> Sendfile(sentry::Task& task, int32_t out_fd, int32_t in_fd,
                                base::UserInOut<int64_t> offset, uint64_t count);
base::Result<uint64_t> CopyFileRange(sentry::Task& task, int32_t in_fd,
                                     base::UserInOut<int64_t> in_offset, int32_t out_fd,
                                     base::UserInOut<int64_t> out_offset, uint64_t length,
                                     uint32_t flags);

}  // namespace syscalls
