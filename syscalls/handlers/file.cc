#include "syscalls/handlers/file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/lease.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/notify.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::FileRef;
using sentry::Task;

namespace {

uint32_t TypeOf(const sentry::File& file) {
  const sentry::InodeRef inode = file.inode();
  return inode == nullptr ? S_IFIFO : inode->type();
}

// RLIMIT_FSIZE for a file that becomes `size` bytes long.
Result<void> CheckSizeLimit(Task& task, uint64_t size) {
  if (size <= task.group().Limit(RLIMIT_FSIZE)) return {};
  TRY(task.SendSignal(sentry::SignalInfo::FromKernel(SIGXFSZ)));
  return Errno(EFBIG);
}

Result<void> SyncFile(Task& task, int32_t fd, bool data_only) {
  const FileRef file = TRY(task.fds().GetForIo(fd));
  return file->Sync(data_only);
}

}  // namespace

Result<void> Fsync(Task& task, int32_t fd) { return SyncFile(task, fd, false); }
Result<void> Fdatasync(Task& task, int32_t fd) { return SyncFile(task, fd, true); }

Result<void> Sync(Task& task) {
  // sync(2) has no errors to tell.
  for (const auto& mount : VfsOf(task).mounts().MountsOf(*task.own_namespaces().mount))
    (void)mount->file_system->Sync().ok();
  return {};
}

Result<void> Syncfs(Task& task, int32_t fd) {
  const FileRef file = TRY(task.fds().GetForIo(fd));
  if (file->path().mount == nullptr) return {};
  return file->path().mount->file_system->Sync();
}

Result<void> SyncFileRange(Task& task, int32_t fd, int64_t offset, int64_t length, uint32_t flags) {
  constexpr uint32_t kKnown =
      SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  const FileRef file = TRY(task.fds().GetForIo(fd));
  if ((flags & ~kKnown) != 0) return Errno(EINVAL);
  int64_t end = 0;
  if (offset < 0 || length < 0 || __builtin_add_overflow(offset, length, &end))
    return Errno(EINVAL);
  const uint32_t type = TypeOf(*file);
  if (type != S_IFREG && type != S_IFBLK && type != S_IFDIR && type != S_IFLNK)
    return Errno(ESPIPE);
  return file->Sync(true);
}

Result<void> Fallocate(Task& task, int32_t fd, int32_t mode, int64_t offset, int64_t length) {
  constexpr int32_t kKnown = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_COLLAPSE_RANGE |
                             FALLOC_FL_ZERO_RANGE | FALLOC_FL_INSERT_RANGE |
                             FALLOC_FL_UNSHARE_RANGE;
  const FileRef file = TRY(task.fds().GetForIo(fd));
  if (offset < 0 || length <= 0) return Errno(EINVAL);
  if ((mode & ~kKnown) != 0) return Errno(EOPNOTSUPP);
  const int32_t kind = mode & ~FALLOC_FL_KEEP_SIZE;
  if ((kind & (kind - 1)) != 0) return Errno(EOPNOTSUPP);  // One operation at a time.
  if (kind == FALLOC_FL_PUNCH_HOLE && (mode & FALLOC_FL_KEEP_SIZE) == 0) return Errno(EOPNOTSUPP);
  if (!file->writable()) return Errno(EBADF);
  const uint32_t type = TypeOf(*file);
  if (type == S_IFIFO) return Errno(ESPIPE);
  if (type == S_IFDIR) return Errno(EISDIR);
  if (type != S_IFREG && type != S_IFBLK) return Errno(ENODEV);
  int64_t end = 0;
  if (__builtin_add_overflow(offset, length, &end)) return Errno(EFBIG);
  if ((mode & FALLOC_FL_KEEP_SIZE) == 0) TRY(CheckSizeLimit(task, static_cast<uint64_t>(end)));
  TRY(file->Allocate(mode, static_cast<uint64_t>(offset), static_cast<uint64_t>(length)));
  NotifyPath(file->path(), IN_MODIFY);
  return {};
}

Result<void> Ftruncate(Task& task, int32_t fd, int64_t length) {
  if (length < 0) return Errno(EINVAL);
  const FileRef file = TRY(task.fds().GetForIo(fd));
  if (TypeOf(*file) != S_IFREG || !file->writable()) return Errno(EINVAL);
  TRY(CheckSizeLimit(task, static_cast<uint64_t>(length)));
  TRY(sentry::DropPrivilegesBeforeWrite(*file->inode(), task.own_credentials()));
  TRY(file->Truncate(static_cast<uint64_t>(length)));
  NotifyPath(file->path(), IN_MODIFY);
  return {};
}

Result<void> Truncate(Task& task, UserAddr path_addr, int64_t length) {
  if (length < 0) return Errno(EINVAL);
  const std::string path = TRY(CopyInPath(task, path_addr));
  const sentry::Path found = TRY(WalkAt(task, AT_FDCWD, path, 0));
  if (found.dentry->is_directory()) return Errno(EISDIR);
  if (found.dentry->inode()->type() != S_IFREG) return Errno(EINVAL);
  TRY(found.dentry->inode()->CheckPermission(task.own_credentials(), 2));
  TRY(CheckSizeLimit(task, static_cast<uint64_t>(length)));
  TRY(sentry::AwaitLeases(task, *found.dentry->inode(), O_WRONLY));
  sentry::AttributeChanges changes;
  changes.size = static_cast<uint64_t>(length);
  return VfsOf(task).SetAttributes(task, found, changes);
}

Result<void> Fadvise64(Task& task, int32_t fd, int64_t, int64_t length, int32_t advice) {
  const FileRef file = TRY(task.fds().GetForIo(fd));
  if (TypeOf(*file) == S_IFIFO) return Errno(ESPIPE);
  if (length < 0) return Errno(EINVAL);
  if (advice < POSIX_FADV_NORMAL || advice > POSIX_FADV_NOREUSE) return Errno(EINVAL);
  return {};  // Advice about the host's page cache, which is not ours to steer.
}

Result<void> Readahead(Task& task, int32_t fd, int64_t, uint64_t) {
  const FileRef file = TRY(task.fds().GetForIo(fd));
  if (!file->readable()) return Errno(EBADF);
  const uint32_t type = TypeOf(*file);
  if (type != S_IFREG && type != S_IFBLK) return Errno(EINVAL);
  return {};
}

}  // namespace syscalls
