#include "syscalls/handlers/paths.h"

#include <fcntl.h>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/vfs.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::Path;
using sentry::Task;

sentry::Vfs& VfsOf(Task& task) { return task.kernel().vfs(); }

Result<std::string> CopyInPath(Task& task, UserAddr addr) {
  return task.memory().CopyInString(addr, sentry::kPathBytesMax);
}

Result<Path> BaseOf(Task& task, int32_t directory_fd, std::string_view path) {
  if (directory_fd == AT_FDCWD || (!path.empty() && path.front() == '/')) return Path{};
  const sentry::FileRef file = TRY(task.fds().Get(directory_fd));
  if (file->path().dentry == nullptr) return Errno(ENOTDIR);
  return file->path();
}

Result<Path> WalkAt(Task& task, const sentry::Caller& caller, int32_t directory_fd,
                    std::string_view path, int32_t flags, bool follow) {
  sentry::WalkOptions options;
  options.follow_last =
      follow ? (flags & AT_SYMLINK_NOFOLLOW) == 0 : (flags & AT_SYMLINK_FOLLOW) != 0;
  options.empty_path = (flags & AT_EMPTY_PATH) != 0;
  const Path base = TRY(BaseOf(task, directory_fd, path));
  return VfsOf(task).Walk(caller, base, path, options);
}

Result<Path> WalkAt(Task& task, int32_t directory_fd, std::string_view path, int32_t flags,
                    bool follow) {
  return WalkAt(task, sentry::Caller(task), directory_fd, path, flags, follow);
}

}  // namespace syscalls
