#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> Stat(sentry::Task& task, base::UserAddr path, base::UserAddr out);
base::Result<void> Lstat(sentry::Task& task, base::UserAddr path, base::UserAddr out);
base::Result<void> Fstat(sentry::Task& task, int32_t fd, base::UserAddr out);
base::Result<void> Newfstatat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                              base::UserAddr out, int32_t flags);
base::Result<void> Statx(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                         int32_t flags, uint32_t mask, base::UserAddr out);
base::Result<void> Statfs(sentry::Task& task, base::UserAddr path, base::UserAddr out);
base::Result<void> Fstatfs(sentry::Task& task, int32_t fd, base::UserAddr out);
base::Result<void> Ustat(sentry::Task& task, uint32_t device, base::UserAddr out);

}  // namespace syscalls
