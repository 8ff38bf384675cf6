#pragma once

// Calls on names, and on the attributes of what they name.

#include <array>
#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> Mkdir(sentry::Task& task, base::UserAddr path, uint32_t mode);
base::Result<void> Mkdirat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                           uint32_t mode);
base::Result<void> Mknod(sentry::Task& task, base::UserAddr path, uint32_t mode, uint32_t device);
base::Result<void> Mknodat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                           uint32_t mode, uint32_t device);
base::Result<void> Rmdir(sentry::Task& task, base::UserAddr path);
base::Result<void> Unlink(sentry::Task& task, base::UserAddr path);
base::Result<void> Unlinkat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                            int32_t flags);
base::Result<void> Rename(sentry::Task& task, base::UserAddr old_path, base::UserAddr new_path);
base::Result<void> Renameat(sentry::Task& task, int32_t old_fd, base::UserAddr old_path,
                            int32_t new_fd, base::UserAddr new_path);
base::Result<void> Renameat2(sentry::Task& task, int32_t old_fd, base::UserAddr old_path,
                             int32_t new_fd, base::UserAddr new_path, uint32_t flags);
base::Result<void> Link(sentry::Task& task, base::UserAddr old_path, base::UserAddr new_path);
base::Result<void> Linkat(sentry::Task& task, int32_t old_fd, base::UserAddr old_path,
                          int32_t new_fd, base::UserAddr new_path, int32_t flags);
base::Result<void> Symlink(sentry::Task& task, base::UserAddr target, base::UserAddr path);
base::Result<void> Symlinkat(sentry::Task& task, base::UserAddr target, int32_t directory_fd,
                             base::UserAddr path);
base::Result<uint64_t> Readlink(sentry::Task& task, base::UserAddr path, base::UserAddr buffer,
                                int32_t size);
base::Result<uint64_t> Readlinkat(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                                  base::UserAddr buffer, int32_t size);

base::Result<void> Chdir(sentry::Task& task, base::UserAddr path);
base::Result<void> Fchdir(sentry::Task& task, int32_t fd);
base::Result<void> Chroot(sentry::Task& task, base::UserAddr path);
base::Result<uint64_t> Getcwd(sentry::Task& task, base::UserAddr buffer, uint64_t size);
base::Result<uint32_t> Umask(sentry::Task& task, uint32_t mask);

}  // namespace syscalls
