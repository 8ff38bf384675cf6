#pragma once

// Descriptors: how they come about and go, and what is set on them.

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class File;
class Task;
}  // namespace sentry

namespace syscalls {

base::Result<int32_t> Open(sentry::Task& task, base::UserAddr path, int32_t flags, uint32_t mode);
base::Result<int32_t> Openat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                             int32_t flags, uint32_t mode);
base::Result<int32_t> Openat2(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                              base::UserAddr how, uint64_t size);
base::Result<int32_t> Creat(sentry::Task& task, base::UserAddr path, uint32_t mode);
base::Result<void> Close(sentry::Task& task, int32_t fd);
base::Result<void> CloseRange(sentry::Task& task, uint32_t first, uint32_t last, uint32_t flags);
base::Result<int32_t> Dup(sentry::Task& task, int32_t fd);
base::Result<int32_t> Dup2(sentry::Task& task, int32_t old_fd, int32_t new_fd);
base::Result<int32_t> Dup3(sentry::Task& task, int32_t old_fd, int32_t new_fd, int32_t flags);
base::Result<uint64_t> Fcntl(sentry::Task& task, int32_t fd, int32_t command, uint64_t argument);
// F_SETFL, FIONBIO, FIOASYNC: `flags` as F_GETFL shows them.
base::Result<void> SetStatusFlags(sentry::Task& task, sentry::File& file, int32_t fd,
                                  uint32_t flags);
base::Result<void> Flock(sentry::Task& task, int32_t fd, int32_t operation);
base::Result<uint64_t> Ioctl(sentry::Task& task, int32_t fd, uint32_t command, uint64_t argument);

}  // namespace syscalls
