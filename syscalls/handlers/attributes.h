#pragma once

// chmod(2), chown(2), utimensat(2), access(2) and their variants.

#include <array>
#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> Chmod(sentry::Task& task, base::UserAddr path, uint32_t mode);
base::Result<void> Fchmod(sentry::Task& task, int32_t fd, uint32_t mode);
base::Result<void> Fchmodat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                            uint32_t mode);
base::Result<void> Fchmodat2(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                             uint32_t mode, int32_t flags);
base::Result<void> Chown(sentry::Task& task, base::UserAddr path, uint32_t uid, uint32_t gid);
base::Result<void> Lchown(sentry::Task& task, base::UserAddr path, uint32_t uid, uint32_t gid);
base::Result<void> Fchown(sentry::Task& task, int32_t fd, uint32_t uid, uint32_t gid);
base::Result<void> Fchownat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                            uint32_t uid, uint32_t gid, int32_t flags);
base::Result<void> Utime(sentry::Task& task, base::UserAddr path, base::UserAddr times);
base::Result<void> Utimes(sentry::Task& task, base::UserAddr path, base::UserAddr times);
base::Result<void> Futimesat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                             base::UserAddr times);
base::Result<void> Utimensat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                             base::UserAddr times, int32_t flags);
base::Result<void> Access(sentry::Task& task, base::UserAddr path, int32_t mode);
base::Result<void> Faccessat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                             int32_t mode);
base::Result<void> Faccessat2(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                              int32_t mode, int32_t flags);

}  // namespace syscalls
