#include "syscalls/handlers/path.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <span>
#include <string>

#include "sentry/kernel/task.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::Path;
using sentry::Task;

Result<void> Mkdirat(Task& task, int32_t directory_fd, UserAddr path_addr, uint32_t mode) {
  const std::string path = TRY(CopyInPath(task, path_addr));
  return VfsOf(task).MakeDirectory(task, TRY(BaseOf(task, directory_fd, path)), path, mode);
}

Result<void> Mkdir(Task& task, UserAddr path, uint32_t mode) {
  return Mkdirat(task, AT_FDCWD, path, mode);
}

Result<void> Mknodat(Task& task, int32_t directory_fd, UserAddr path_addr, uint32_t mode,
                     uint32_t device) {
  const std::string path = TRY(CopyInPath(task, path_addr));
  // The call's 32-bit device number has stat's layout already (new_decode_dev).
  return VfsOf(task).MakeNode(task, TRY(BaseOf(task, directory_fd, path)), path, mode, device);
}

Result<void> Mknod(Task& task, UserAddr path, uint32_t mode, uint32_t device) {
  return Mknodat(task, AT_FDCWD, path, mode, device);
}

Result<void> Unlinkat(Task& task, int32_t directory_fd, UserAddr path_addr, int32_t flags) {
  if ((flags & ~AT_REMOVEDIR) != 0) return Errno(EINVAL);
  const std::string path = TRY(CopyInPath(task, path_addr));
  const Path base = TRY(BaseOf(task, directory_fd, path));
  if ((flags & AT_REMOVEDIR) != 0) return VfsOf(task).RemoveDirectory(task, base, path);
  return VfsOf(task).Unlink(task, base, path);
}

Result<void> Unlink(Task& task, UserAddr path) { return Unlinkat(task, AT_FDCWD, path, 0); }
Result<void> Rmdir(Task& task, UserAddr path) {
  return Unlinkat(task, AT_FDCWD, path, AT_REMOVEDIR);
}

Result<void> Renameat2(Task& task, int32_t old_fd, UserAddr old_addr, int32_t new_fd,
                       UserAddr new_addr, uint32_t flags) {
  const std::string old_path = TRY(CopyInPath(task, old_addr));
  const std::string new_path = TRY(CopyInPath(task, new_addr));
  const Path old_base = TRY(BaseOf(task, old_fd, old_path));
  const Path new_base = TRY(BaseOf(task, new_fd, new_path));
  return VfsOf(task).Rename(task, old_base, old_path, new_base, new_path, flags);
}

Result<void> Renameat(Task& task, int32_t old_fd, UserAddr old_path, int32_t new_fd,
                      UserAddr new_path) {
  return Renameat2(task, old_fd, old_path, new_fd, new_path, 0);
}

Result<void> Rename(Task& task, UserAddr old_path, UserAddr new_path) {
  return Renameat2(task, AT_FDCWD, old_path, AT_FDCWD, new_path, 0);
}

Result<void> Linkat(Task& task, int32_t old_fd, UserAddr old_addr, int32_t new_fd,
                    UserAddr new_addr, int32_t flags) {
  if ((flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)) != 0) return Errno(EINVAL);
  if ((flags & AT_EMPTY_PATH) != 0 &&
      !task.own_credentials().HasOwnCapability(CAP_DAC_READ_SEARCH)) {
    return Errno(ENOENT);
  }
  const std::string old_path = TRY(CopyInPath(task, old_addr));
  const std::string new_path = TRY(CopyInPath(task, new_addr));
  const Path target = TRY(WalkAt(task, old_fd, old_path, flags, false));
  return VfsOf(task).Link(task, target, TRY(BaseOf(task, new_fd, new_path)), new_path);
}

Result<void> Link(Task& task, UserAddr old_path, UserAddr new_path) {
  return Linkat(task, AT_FDCWD, old_path, AT_FDCWD, new_path, 0);
}

Result<void> Symlinkat(Task& task, UserAddr target_addr, int32_t directory_fd, UserAddr path_addr) {
  const std::string target = TRY(CopyInPath(task, target_addr));
  if (target.empty()) return Errno(ENOENT);
  const std::string path = TRY(CopyInPath(task, path_addr));
  return VfsOf(task).MakeSymlink(task, target, TRY(BaseOf(task, directory_fd, path)), path);
}

Result<void> Symlink(Task& task, UserAddr target, UserAddr path) {
  return Symlinkat(task, target, AT_FDCWD, path);
}

Result<uint64_t> Readlinkat(Task& task, int32_t directory_fd, UserAddr path_addr, UserAddr buffer,
                            int32_t size) {
  if (size <= 0) return Errno(EINVAL);
  const std::string path = TRY(CopyInPath(task, path_addr));
  // An empty path names the link that an O_PATH descriptor refers to.
  const Path found =
      TRY(WalkAt(task, directory_fd, path,
                 AT_SYMLINK_NOFOLLOW | (directory_fd != AT_FDCWD ? AT_EMPTY_PATH : 0)));
  if (!found.dentry->is_symlink()) return Errno(path.empty() ? ENOENT : EINVAL);
  const std::string text = TRY(found.dentry->inode()->ReadLinkFor(task));
  const size_t count = std::min<size_t>(text.size(), static_cast<size_t>(size));
  TRY(task.memory().CopyOutExactly(buffer, std::as_bytes(std::span(text.data(), count))));
  return uint64_t{count};
}

Result<uint64_t> Readlink(Task& task, UserAddr path, UserAddr buffer, int32_t size) {
  return Readlinkat(task, AT_FDCWD, path, buffer, size);
}

Result<void> Chdir(Task& task, UserAddr path_addr) {
  const std::string path = TRY(CopyInPath(task, path_addr));
  const sentry::Caller caller(task);
  sentry::WalkOptions options;
  options.directory_only = true;
  Path found = TRY(VfsOf(task).Walk(caller, {}, path, options));
  TRY(found.dentry->inode()->CheckPermission(caller.credentials(), X_OK));
  task.fs().set_working_directory(std::move(found));
  return {};
}

Result<void> Fchdir(Task& task, int32_t fd) {
  const sentry::FileRef file = TRY(task.fds().Get(fd));
  const Path& path = file->path();
  if (path.dentry == nullptr || !path.dentry->is_directory()) return Errno(ENOTDIR);
  TRY(path.dentry->inode()->CheckPermission(task.own_credentials(), X_OK));
  task.fs().set_working_directory(path);
  return {};
}

Result<void> Chroot(Task& task, UserAddr path_addr) {
  const std::string path = TRY(CopyInPath(task, path_addr));
  const sentry::Caller caller(task);
  sentry::WalkOptions options;
  options.directory_only = true;
  Path found = TRY(VfsOf(task).Walk(caller, {}, path, options));
  TRY(found.dentry->inode()->CheckPermission(caller.credentials(), X_OK));
  if (!caller.credentials().HasOwnCapability(CAP_SYS_CHROOT)) return Errno(EPERM);
  task.fs().set_root(std::move(found));
  return {};
}

Result<uint64_t> Getcwd(Task& task, UserAddr buffer, uint64_t size) {
  const sentry::Caller caller(task);
  const Path& directory = caller.working_directory();
  if (directory.dentry->is_deleted()) return Errno(ENOENT);
  const std::string name = VfsOf(task).NameOf(directory, caller.root());
  const size_t bytes = name.size() + 1;
  if (bytes > sentry::kPathBytesMax) return Errno(ENAMETOOLONG);
  if (bytes > size) return Errno(ERANGE);
  TRY(task.memory().CopyOutExactly(buffer, std::as_bytes(std::span(name.c_str(), bytes))));
  return uint64_t{bytes};
}

Result<uint32_t> Umask(Task& task, uint32_t mask) { return task.fs().set_umask(mask); }

}  // namespace syscalls
