#pragma once

// What is done to a file as a whole: its size, its allocation, writing it out, advice about it.

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> Fsync(sentry::Task& task, int32_t fd);
base::Result<void> Fdatasync(sentry::Task& task, int32_t fd);
base::Result<void> Sync(sentry::Task& task);
base::Result<void> Syncfs(sentry::Task& task, int32_t fd);
base::Result<void> SyncFileRange(sentry::Task& task, int32_t fd, int64_t offset, int64_t length,
                                 uint32_t flags);
base::Result<void> Fallocate(sentry::Task& task, int32_t fd, int32_t mode, int64_t offset,
                             int64_t length);
base::Result<void> Ftruncate(sentry::Task& task, int32_t fd, int64_t length);
base::Result<void> Truncate(sentry::Task& task, base::UserAddr path, int64_t length);
base::Result<void> Fadvise64(sentry::Task& task, int32_t fd, int64_t offset, int64_t length,
                             int32_t advice);
base::Result<void> Readahead(sentry::Task& task, int32_t fd, int64_t offset, uint64_t count);

}  // namespace syscalls
