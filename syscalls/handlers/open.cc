#include "syscalls/handlers/open.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "sentry/kernel/task.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::FileRef;
using sentry::Task;

namespace {

constexpr uint32_t kLargeFile =
    0100000;  // O_LARGEFILE as the kernel counts it; the C library says 0.
constexpr uint32_t kTmpFileBit = 020000000;  // __O_TMPFILE
constexpr uint32_t kSyncBit = 04000000;      // __O_SYNC
constexpr uint32_t kKnownOpenFlags =
    O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC | O_ASYNC |
    O_DIRECT | kLargeFile | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_PATH | kTmpFileBit;
constexpr uint64_t kKnownResolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS |
                                   RESOLVE_BENEATH | RESOLVE_IN_ROOT | RESOLVE_CACHED;

struct OpenHow {
  uint64_t flags;
  uint64_t mode;
  uint64_t resolve;
};

// build_open_flags.
Result<sentry::OpenRequest> CheckRequest(const OpenHow& how) {
  if ((how.flags & ~uint64_t{kKnownOpenFlags}) != 0 || (how.resolve & ~kKnownResolve) != 0)
    return Errno(EINVAL);
  if ((how.resolve & RESOLVE_BENEATH) != 0 && (how.resolve & RESOLVE_IN_ROOT) != 0)
    return Errno(EINVAL);
  auto flags = static_cast<uint32_t>(how.flags);
  const bool makes = (flags & (O_CREAT | kTmpFileBit)) != 0;
  if (!makes && how.mode != 0) return Errno(EINVAL);
  if (makes && (how.mode & ~uint64_t{07777}) != 0) return Errno(EINVAL);
  if ((flags & (O_DIRECTORY | O_CREAT)) == (O_DIRECTORY | O_CREAT)) return Errno(EINVAL);
  if ((flags & kTmpFileBit) != 0) {
    if ((flags & (O_TMPFILE | O_CREAT)) != O_TMPFILE) return Errno(EINVAL);
    if ((flags & O_ACCMODE) == O_RDONLY) return Errno(EINVAL);
  }
  if ((flags & O_PATH) != 0 &&
      (flags & ~static_cast<uint32_t>(O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) != 0) {
    return Errno(EINVAL);
  }
  if ((how.resolve & RESOLVE_CACHED) != 0 && (flags & (O_TRUNC | O_CREAT | kTmpFileBit)) != 0)
    return Errno(EAGAIN);
  if ((flags & kSyncBit) != 0) flags |= O_DSYNC;
  return sentry::OpenRequest{flags, static_cast<uint32_t>(how.mode), how.resolve};
}

Result<int32_t> OpenWith(Task& task, int32_t directory_fd, UserAddr path_addr, const OpenHow& how) {
  const sentry::OpenRequest request = TRY(CheckRequest(how));
  const std::string path = TRY(CopyInPath(task, path_addr));
  if (path.empty()) return Errno(ENOENT);
  sentry::FdSlot slot = TRY(task.fds().Reserve((request.flags & O_CLOEXEC) != 0, task.fd_limit()));
  // An absolute path is walked from the directory too if that is the scope.
  const bool scoped = (request.resolve & (RESOLVE_IN_ROOT | RESOLVE_BENEATH)) != 0;
  const sentry::Path base = TRY(BaseOf(task, directory_fd, scoped ? std::string_view() : path));
  FileRef file = TRY(VfsOf(task).Open(task, base, path, request));
  const int32_t number = slot.number();
  std::move(slot).Fill(std::move(file));
  return number;
}

// open(2) has always ignored what it does not know.
OpenHow HowOf(uint32_t flags, uint32_t mode) {
  flags &= kKnownOpenFlags;
  if ((flags & O_PATH) != 0) {
    flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  } else {
    flags |= kLargeFile;
  }
  const bool makes = (flags & (O_CREAT | kTmpFileBit)) != 0;
  return {flags, makes ? mode & 07777U : 0, 0};
}

}  // namespace

Result<int32_t> Open(Task& task, UserAddr path, int32_t flags, uint32_t mode) {
  return OpenWith(task, AT_FDCWD, path, HowOf(static_cast<uint32_t>(flags), mode));
}

Result<int32_t> Openat(Task& task, int32_t directory_fd, UserAddr path, int32_t flags,
                       uint32_t mode) {
  return OpenWith(task, directory_fd, path, HowOf(static_cast<uint32_t>(flags), mode));
}

Result<int32_t> Creat(Task& task, UserAddr path, uint32_t mode) {
  return OpenWith(task, AT_FDCWD, path, HowOf(O_CREAT | O_WRONLY | O_TRUNC, mode));
}

Result<int32_t> Openat2(Task& task, int32_t directory_fd, UserAddr path, UserAddr how_addr,
                        uint64_t size) {
  if (size < sizeof(OpenHow)) return Errno(EINVAL);
  if (size > base::kPageSize) return Errno(E2BIG);
  const OpenHow how = TRY(task.CopyIn(UserIn<OpenHow>(how_addr)));
  // What a later version of the structure adds must be zero.
  const std::vector<uint8_t> rest = TRY(task.memory().CopyInArray<uint8_t>(
      TRY(how_addr.Plus(sizeof(OpenHow))), size - sizeof(OpenHow)));
  if (std::any_of(rest.begin(), rest.end(), [](uint8_t byte) { return byte != 0; }))
    return Errno(E2BIG);
  return OpenWith(task, directory_fd, path, how);
}

Result<void> Close(Task& task, int32_t fd) {
  const Result<void> result = task.fds().Close(task, fd);
  // The descriptor is gone: a restart would close another one.
  if (!result.ok() && result.error().IsRestart()) return Errno(EINTR);
  return result;
}

Result<void> CloseRange(Task& task, uint32_t first, uint32_t last, uint32_t flags) {
  if ((flags & ~static_cast<uint32_t>(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) != 0)
    return Errno(EINVAL);
  if (first > last) return Errno(EINVAL);
  if ((flags & CLOSE_RANGE_UNSHARE) != 0) task.UnshareFds();
  task.fds().CloseRange(task, first, last, (flags & CLOSE_RANGE_CLOEXEC) != 0);
  return {};
}

Result<int32_t> Dup(Task& task, int32_t fd) {
  FileRef file = TRY(task.fds().Get(fd));
  return task.fds().Install(std::move(file), false, task.fd_limit());
}

Result<int32_t> Dup3(Task& task, int32_t old_fd, int32_t new_fd, int32_t flags) {
  if ((flags & ~O_CLOEXEC) != 0) return Errno(EINVAL);
  if (old_fd == new_fd) return Errno(EINVAL);
  if (new_fd < 0 || static_cast<uint64_t>(new_fd) >= task.fd_limit()) return Errno(EBADF);
  FileRef file = TRY(task.fds().Get(old_fd));
  TRY(task.fds().InstallAt(task, new_fd, std::move(file), (flags & O_CLOEXEC) != 0,
                           task.fd_limit()));
  return new_fd;
}

Result<int32_t> Dup2(Task& task, int32_t old_fd, int32_t new_fd) {
  if (old_fd != new_fd) return Dup3(task, old_fd, new_fd, 0);
  TRY(task.fds().Get(old_fd));
  return new_fd;
}

// ioctl(2): what holds for every descriptor; the rest is the file's.
Result<uint64_t> Ioctl(Task& task, int32_t fd, uint32_t command, uint64_t argument) {
  const FileRef file = TRY(task.fds().GetForIo(fd));
  switch (command) {
    case FIOCLEX:
    case FIONCLEX:
      TRY(task.fds().set_close_on_exec(fd, command == FIOCLEX));
      return uint64_t{0};
    case FIONBIO:
    case FIOASYNC: {
      const int32_t on = TRY(task.CopyIn(UserIn<int32_t>(UserAddr(argument))));
      const uint32_t bit = command == FIONBIO ? O_NONBLOCK : O_ASYNC;
      if (command == FIOASYNC && !file->SupportsAsync()) return Errno(ENOTTY);
      TRY(SetStatusFlags(task, *file, fd, on != 0 ? file->flags() | bit : file->flags() & ~bit));
      return uint64_t{0};
    }
    case FIONREAD: {
      const sentry::InodeRef inode = file->inode();
      if (inode == nullptr || inode->type() != S_IFREG) break;
      const uint64_t size = TRY(file->GetAttributes()).size;
      const absl::MutexLock lock(&file->position_mutex());
      const auto left = static_cast<int64_t>(size - file->position());
      TRY(task.CopyOut(UserOut<int32_t>(UserAddr(argument)), static_cast<int32_t>(left)));
      return uint64_t{0};
    }
    default:
      break;
  }
  return file->Ioctl(task, command, argument);
}

}  // namespace syscalls
