#pragma once

// What calls that take paths share.

#include <cstdint>
#include <string>
#include <string_view>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "sentry/vfs/caller.h"
#include "sentry/vfs/path.h"

namespace sentry {
class Task;
class Vfs;
}  // namespace sentry

namespace syscalls {

// EFAULT, ENAMETOOLONG. Empty paths are left to the walk.
base::Result<std::string> CopyInPath(sentry::Task& task, base::UserAddr addr);
// Where a relative `path` starts: null for the working directory. EBADF, ENOTDIR. Not looked at if
// `path` is absolute.
base::Result<sentry::Path> BaseOf(sentry::Task& task, int32_t directory_fd, std::string_view path);
// The *at calls that look something up: flags AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW and
// AT_EMPTY_PATH count, others are the caller's business. `follow`: what is done without a flag.
base::Result<sentry::Path> WalkAt(sentry::Task& task, int32_t directory_fd, std::string_view path,
                                  int32_t flags, bool follow = true);
base::Result<sentry::Path> WalkAt(sentry::Task& task, const sentry::Caller& caller,
                                  int32_t directory_fd, std::string_view path, int32_t flags,
                                  bool follow = true);
sentry::Vfs& VfsOf(sentry::Task& task);

}  // namespace syscalls
