#include "syscalls/handlers/attributes.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using sentry::AttributeChanges;
using sentry::FileRef;
using sentry::Path;
using sentry::Task;
using sentry::Timestamp;

namespace {

struct AbiTimespec {
  int64_t seconds;
  int64_t nanoseconds;
};
struct AbiTimeval {
  int64_t seconds;
  int64_t microseconds;
};
struct AbiUtimbuf {
  int64_t access;
  int64_t modification;
};

constexpr uint32_t kUnchanged = ~uint32_t{0};

// Through a descriptor; what has no place in the tree (pipes, sockets) is asked itself.
Result<void> ChangeFile(Task& task, sentry::File& file, const AttributeChanges& changes) {
  if (file.path().dentry != nullptr) return VfsOf(task).SetAttributes(task, file.path(), changes);
  return file.SetAttributes(changes);
}

Result<AttributeChanges> OwnerChanges(Task& task, uint32_t uid, uint32_t gid) {
  const sentry::UserNamespaceRef& space = task.own_credentials().user_namespace;
  AttributeChanges changes;
  if (uid != kUnchanged) changes.uid = sentry::UidToGlobal(space, uid);
  if (gid != kUnchanged) changes.gid = sentry::GidToGlobal(space, gid);
  if (changes.uid == kUnchanged || changes.gid == kUnchanged) return Errno(EINVAL);
  return changes;
}

AttributeChanges ModeChange(uint32_t mode) {
  AttributeChanges changes;
  changes.mode = mode & 07777U;
  return changes;
}

Timestamp Now(Task& task) {
  constexpr int64_t kSecondNs = 1'000'000'000;
  const int64_t now = task.kernel().clock().RealtimeNs();
  return {now / kSecondNs, static_cast<uint32_t>(now % kSecondNs)};
}

AttributeChanges TouchNow(Task& task) {
  AttributeChanges changes;
  changes.atime = changes.mtime = Now(task);
  changes.times_are_now = true;
  return changes;
}

Result<AttributeChanges> TimesFrom(Task& task, const std::array<AbiTimespec, 2>& times) {
  AttributeChanges changes;
  const Timestamp now = Now(task);
  const auto convert = [&](const AbiTimespec& time, std::optional<Timestamp>* to) -> Result<void> {
    if (time.nanoseconds == UTIME_OMIT) return {};
    if (time.nanoseconds == UTIME_NOW) {
      *to = now;
      return {};
    }
    if (time.nanoseconds < 0 || time.nanoseconds > 999'999'999) return Errno(EINVAL);
    *to = Timestamp{time.seconds, static_cast<uint32_t>(time.nanoseconds)};
    return {};
  };
  TRY(convert(times[0], &changes.atime));
  TRY(convert(times[1], &changes.mtime));
  changes.times_are_now = times[0].nanoseconds == UTIME_NOW && times[1].nanoseconds == UTIME_NOW;
  return changes;
}

Result<AttributeChanges> TimesFromTimevals(Task& task, UserAddr times) {
  if (times.is_null()) return TouchNow(task);
  const auto values = TRY(task.CopyIn(UserIn<std::array<AbiTimeval, 2>>(times)));
  std::array<AbiTimespec, 2> converted{};
  for (size_t i = 0; i < 2; ++i) {
    if (values[i].microseconds < 0 || values[i].microseconds >= 1'000'000) return Errno(EINVAL);
    converted[i] = {values[i].seconds, values[i].microseconds * 1000};
  }
  return TimesFrom(task, converted);
}

Result<void> SetTimes(Task& task, int32_t directory_fd, UserAddr path_addr, int32_t flags,
                      const AttributeChanges& changes) {
  if (path_addr.is_null() && directory_fd != AT_FDCWD) {
    if (flags != 0) return Errno(EINVAL);
    const FileRef file = TRY(task.fds().GetForIo(directory_fd));
    return ChangeFile(task, *file, changes);
  }
  const std::string path = TRY(CopyInPath(task, path_addr));
  return VfsOf(task).SetAttributes(task, TRY(WalkAt(task, directory_fd, path, flags)), changes);
}

// access(2) asks for the real ids (access_override_creds).
sentry::CredentialsRef RealCredentials(const sentry::CredentialsRef& mine) {
  const sentry::Credentials& own = *mine;
  const bool fixes_up = (own.securebits & SECBIT_NO_SETUID_FIXUP) == 0;
  const sentry::CapabilitySet effective =
      own.uid == sentry::UidToGlobal(own.user_namespace, 0) ? own.permitted : 0;
  if (own.fsuid == own.uid && own.fsgid == own.gid && (!fixes_up || own.effective == effective)) {
    return mine;
  }
  auto real = std::make_shared<sentry::Credentials>(own);
  real->fsuid = real->uid;
  real->fsgid = real->gid;
  if (fixes_up) real->effective = effective;
  return real;
}

}  // namespace

Result<void> Fchmodat2(Task& task, int32_t directory_fd, UserAddr path_addr, uint32_t mode,
                       int32_t flags) {
  if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return Errno(EINVAL);
  const std::string path = TRY(CopyInPath(task, path_addr));
  return VfsOf(task).SetAttributes(task, TRY(WalkAt(task, directory_fd, path, flags)),
                                   ModeChange(mode));
}

Result<void> Fchmodat(Task& task, int32_t directory_fd, UserAddr path, uint32_t mode) {
  return Fchmodat2(task, directory_fd, path, mode, 0);
}

Result<void> Chmod(Task& task, UserAddr path, uint32_t mode) {
  return Fchmodat2(task, AT_FDCWD, path, mode, 0);
}

Result<void> Fchmod(Task& task, int32_t fd, uint32_t mode) {
  const FileRef file = TRY(task.fds().GetForIo(fd));
  return ChangeFile(task, *file, ModeChange(mode));
}

Result<void> Fchownat(Task& task, int32_t directory_fd, UserAddr path_addr, uint32_t uid,
                      uint32_t gid, int32_t flags) {
  if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return Errno(EINVAL);
  const std::string path = TRY(CopyInPath(task, path_addr));
  return VfsOf(task).SetAttributes(task, TRY(WalkAt(task, directory_fd, path, flags)),
                                   TRY(OwnerChanges(task, uid, gid)));
}

Result<void> Chown(Task& task, UserAddr path, uint32_t uid, uint32_t gid) {
  return Fchownat(task, AT_FDCWD, path, uid, gid, 0);
}

Result<void> Lchown(Task& task, UserAddr path, uint32_t uid, uint32_t gid) {
  return Fchownat(task, AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW);
}

Result<void> Fchown(Task& task, int32_t fd, uint32_t uid, uint32_t gid) {
  const FileRef file = TRY(task.fds().GetForIo(fd));
  return ChangeFile(task, *file, TRY(OwnerChanges(task, uid, gid)));
}

Result<void> Utimensat(Task& task, int32_t directory_fd, UserAddr path, UserAddr times,
                       int32_t flags) {
  AttributeChanges changes = TouchNow(task);
  if (!times.is_null()) {
    const auto values = TRY(task.CopyIn(UserIn<std::array<AbiTimespec, 2>>(times)));
    if (values[0].nanoseconds == UTIME_OMIT && values[1].nanoseconds == UTIME_OMIT) return {};
    changes = TRY(TimesFrom(task, values));
  }
  if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return Errno(EINVAL);
  return SetTimes(task, directory_fd, path, flags, changes);
}

Result<void> Futimesat(Task& task, int32_t directory_fd, UserAddr path, UserAddr times) {
  return SetTimes(task, directory_fd, path, 0, TRY(TimesFromTimevals(task, times)));
}

Result<void> Utimes(Task& task, UserAddr path, UserAddr times) {
  return Futimesat(task, AT_FDCWD, path, times);
}

Result<void> Utime(Task& task, UserAddr path, UserAddr times) {
  AttributeChanges changes = TouchNow(task);
  if (!times.is_null()) {
    const AbiUtimbuf values = TRY(task.CopyIn(UserIn<AbiUtimbuf>(times)));
    changes.atime = Timestamp{values.access, 0};
    changes.mtime = Timestamp{values.modification, 0};
    changes.times_are_now = false;
  }
  return SetTimes(task, AT_FDCWD, path, 0, changes);
}

Result<void> Faccessat2(Task& task, int32_t directory_fd, UserAddr path_addr, int32_t mode,
                        int32_t flags) {
  if ((mode & ~(R_OK | W_OK | X_OK)) != 0) return Errno(EINVAL);
  if ((flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return Errno(EINVAL);
  const std::string path = TRY(CopyInPath(task, path_addr));
  sentry::Caller caller(task);
  if ((flags & AT_EACCESS) == 0)
    caller.set_credentials(RealCredentials(task.own_credentials_ref()));
  const Path found = TRY(WalkAt(task, caller, directory_fd, path, flags & ~AT_EACCESS));
  sentry::Inode& inode = *found.dentry->inode();
  const uint32_t type = inode.type();
  if ((mode & X_OK) != 0 && type == S_IFREG && (found.mount->flags.load() & MS_NOEXEC) != 0)
    return Errno(EACCES);
  TRY(inode.CheckPermission(caller.credentials(), mode));
  const bool special = type == S_IFCHR || type == S_IFBLK || type == S_IFIFO || type == S_IFSOCK;
  if ((mode & W_OK) != 0 && !special && found.mount->read_only()) return Errno(EROFS);
  return {};
}

Result<void> Faccessat(Task& task, int32_t directory_fd, UserAddr path, int32_t mode) {
  return Faccessat2(task, directory_fd, path, mode, 0);
}

Result<void> Access(Task& task, UserAddr path, int32_t mode) {
  return Faccessat2(task, AT_FDCWD, path, mode, 0);
}

}  // namespace syscalls
