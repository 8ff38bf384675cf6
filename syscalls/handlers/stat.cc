#include "syscalls/handlers/stat.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserOut;
using sentry::Attributes;
using sentry::FileRef;
using sentry::Path;
using sentry::Task;
using sentry::Timestamp;

namespace {

// struct stat on x86-64.
struct AbiStat {
  uint64_t device, inode, nlink;
  uint32_t mode, uid, gid, pad;
  uint64_t rdev, size, block_size, blocks;
  uint64_t atime_s, atime_ns, mtime_s, mtime_ns, ctime_s, ctime_ns;
  std::array<uint64_t, 3> unused;
};
static_assert(sizeof(AbiStat) == 144);

struct AbiStatxTime {
  int64_t seconds;
  uint32_t nanoseconds;
  int32_t pad;
};

// struct statx.
struct AbiStatx {
  uint32_t mask, block_size;
  uint64_t attributes;
  uint32_t nlink, uid, gid;
  uint16_t mode, pad;
  uint64_t inode, size, blocks, attributes_mask;
  AbiStatxTime atime, btime, ctime, mtime;
  uint32_t rdev_major, rdev_minor, device_major, device_minor;
  uint64_t mount_id;
  uint32_t dio_memory_align, dio_offset_align;
  std::array<uint64_t, 12> spare;
};
static_assert(sizeof(AbiStatx) == 256);

struct AbiStatfs {
  uint64_t type, block_size, blocks, blocks_free, blocks_available, files, files_free;
  uint64_t id;
  uint64_t name_bytes_max, fragment_size, flags;
  std::array<uint64_t, 4> spare;
};
static_assert(sizeof(AbiStatfs) == 120);

struct AbiUstat {
  int32_t blocks_free;
  uint32_t pad;
  uint64_t inodes_free;
  std::array<char, 6> name, pack;
  uint32_t pad2;
};
static_assert(sizeof(AbiUstat) == 32);

AbiStat ToStat(const Attributes& from) {
  AbiStat to{};
  to.device = from.device;
  to.inode = from.inode;
  to.nlink = from.nlink;
  to.mode = from.mode;
  to.uid = from.uid;
  to.gid = from.gid;
  to.rdev = from.rdev;
  to.size = from.size;
  to.block_size = from.block_size;
  to.blocks = from.blocks;
  to.atime_s = static_cast<uint64_t>(from.atime.seconds);
  to.atime_ns = from.atime.nanoseconds;
  to.mtime_s = static_cast<uint64_t>(from.mtime.seconds);
  to.mtime_ns = from.mtime.nanoseconds;
  to.ctime_s = static_cast<uint64_t>(from.ctime.seconds);
  to.ctime_ns = from.ctime.nanoseconds;
  return to;
}

AbiStatxTime ToStatxTime(const Timestamp& time) { return {time.seconds, time.nanoseconds, 0}; }

// STATX_MNT_ID_UNIQUE of Linux 6.8.
constexpr uint32_t kStatxMountIdUnique = 0x4000;

AbiStatx ToStatx(const sentry::Vfs::Looked& found, uint32_t mask) {
  const Attributes& from = found.attributes;
  AbiStatx to{};
  to.mask = STATX_BASIC_STATS;
  if (from.btime != Timestamp{}) to.mask |= STATX_BTIME;
  to.block_size = from.block_size;
  to.nlink = from.nlink;
  to.uid = from.uid;
  to.gid = from.gid;
  to.mode = static_cast<uint16_t>(from.mode);
  to.inode = from.inode;
  to.size = from.size;
  to.blocks = from.blocks;
  to.atime = ToStatxTime(from.atime);
  to.btime = ToStatxTime(from.btime);
  to.ctime = ToStatxTime(from.ctime);
  to.mtime = ToStatxTime(from.mtime);
  to.rdev_major = gnu_dev_major(from.rdev);
  to.rdev_minor = gnu_dev_minor(from.rdev);
  to.device_major = gnu_dev_major(from.device);
  to.device_minor = gnu_dev_minor(from.device);
  to.attributes_mask = STATX_ATTR_MOUNT_ROOT;
  if (found.mount_id != 0) {
    const bool unique = (mask & kStatxMountIdUnique) != 0;
    to.mask |= unique ? kStatxMountIdUnique : uint32_t{STATX_MNT_ID};
    to.mount_id = unique ? found.mount_unique_id : found.mount_id;
    if (found.is_mount_root) to.attributes |= STATX_ATTR_MOUNT_ROOT;
  }
  return to;
}

// As the caller's user namespace calls them.
void ShowOwners(Task& task, sentry::Attributes* attributes) {
  const sentry::UserNamespaceRef& space = task.own_credentials().user_namespace;
  if (space == nullptr) return;
  attributes->uid = sentry::UidSeenFrom(space, attributes->uid);
  attributes->gid = sentry::GidSeenFrom(space, attributes->gid);
}

// What stat-like calls look at: `path` at `directory_fd`, or the descriptor itself where the path
// is empty and may be.
Result<sentry::Vfs::Looked> Look(Task& task, int32_t directory_fd, UserAddr path_addr,
                                 int32_t flags) {
  std::string path;
  // A null pointer is an empty path since Linux 6.11.
  if ((flags & AT_EMPTY_PATH) == 0 || !path_addr.is_null()) path = TRY(CopyInPath(task, path_addr));
  if (path.empty() && (flags & AT_EMPTY_PATH) != 0 && directory_fd != AT_FDCWD) {
    const FileRef file = TRY(task.fds().Get(directory_fd));
    sentry::Vfs::Looked found{TRY(file->GetAttributes())};
    if (const sentry::MountRef& mount = file->path().mount) {
      found.mount_id = mount->id;
      found.mount_unique_id = mount->unique_id;
      found.is_mount_root = file->path().dentry == mount->root;
    }
    return found;
  }
  sentry::WalkOptions options;
  options.follow_last = (flags & AT_SYMLINK_NOFOLLOW) == 0;
  options.empty_path = (flags & AT_EMPTY_PATH) != 0;
  const Path base = TRY(BaseOf(task, directory_fd, path));
  return VfsOf(task).Look(task, base, path, options);
}

Result<void> StatfsOf(Task& task, const Path& path, UserAddr out) {
  AbiStatfs to{};
  if (path.mount != nullptr) {
    const sentry::FileSystemStatus from = TRY(path.mount->file_system->Status());
    to.type = from.type;
    to.block_size = from.block_size;
    to.blocks = from.blocks;
    to.blocks_free = from.blocks_free;
    to.blocks_available = from.blocks_available;
    to.files = from.files;
    to.files_free = from.files_free;
    to.id = from.id;
    to.name_bytes_max = from.name_bytes_max;
    to.fragment_size = from.block_size;
    constexpr uint64_t kShown =
        MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_SYNCHRONOUS | MS_MANDLOCK;
    const uint64_t mount_flags = path.mount->flags.load(std::memory_order_relaxed);
    constexpr uint64_t kValid = 0x20;  // ST_VALID
    to.flags = from.flags | kValid | (mount_flags & kShown);
    if (path.mount->read_only()) to.flags |= ST_RDONLY;
    if ((mount_flags & MS_NOATIME) != 0) {
      to.flags |= ST_NOATIME;
    } else if ((mount_flags & MS_STRICTATIME) == 0) {
      to.flags |= ST_RELATIME;
    }
    if ((mount_flags & MS_NODIRATIME) != 0) to.flags |= ST_NODIRATIME;
  } else {
    to.type = 0x09041934;  // ANON_INODE_FS_MAGIC
    to.block_size = to.fragment_size = base::kPageSize;
    to.name_bytes_max = sentry::kNameBytesMax;
  }
  return task.CopyOut(UserOut<AbiStatfs>(out), to);
}

}  // namespace

Result<void> Newfstatat(Task& task, int32_t directory_fd, UserAddr path, UserAddr out,
                        int32_t flags) {
  if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE)) !=
      0) {
    return Errno(EINVAL);
  }
  auto found = TRY(Look(task, directory_fd, path, flags));
  ShowOwners(task, &found.attributes);
  return task.CopyOut(UserOut<AbiStat>(out), ToStat(found.attributes));
}

Result<void> Stat(Task& task, UserAddr path, UserAddr out) {
  return Newfstatat(task, AT_FDCWD, path, out, 0);
}

Result<void> Lstat(Task& task, UserAddr path, UserAddr out) {
  return Newfstatat(task, AT_FDCWD, path, out, AT_SYMLINK_NOFOLLOW);
}

Result<void> Fstat(Task& task, int32_t fd, UserAddr out) {
  const sentry::FileHold file = TRY(task.HoldFile(fd));
  sentry::Attributes attributes = TRY(file->GetAttributes());
  ShowOwners(task, &attributes);
  return task.CopyOut(UserOut<AbiStat>(out), ToStat(attributes));
}

Result<void> Statx(Task& task, int32_t directory_fd, UserAddr path, int32_t flags, uint32_t mask,
                   UserAddr out) {
  constexpr uint32_t kReserved = 0x80000000U;  // STATX__RESERVED
  if ((mask & kReserved) != 0 || (flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE)
    return Errno(EINVAL);
  if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE)) !=
      0) {
    return Errno(EINVAL);
  }
  auto found = TRY(Look(task, directory_fd, path, flags));
  ShowOwners(task, &found.attributes);
  return task.CopyOut(UserOut<AbiStatx>(out), ToStatx(found, mask));
}

Result<void> Statfs(Task& task, UserAddr path_addr, UserAddr out) {
  const std::string path = TRY(CopyInPath(task, path_addr));
  return StatfsOf(task, TRY(WalkAt(task, AT_FDCWD, path, 0)), out);
}

Result<void> Fstatfs(Task& task, int32_t fd, UserAddr out) {
  const FileRef file = TRY(task.fds().Get(fd));
  return StatfsOf(task, file->path(), out);
}

Result<void> Ustat(Task& task, uint32_t device, UserAddr out) {
  for (const auto& mount : VfsOf(task).mounts().MountsOf(*task.own_namespaces().mount)) {
    if (mount->file_system->device() != device) continue;
    const sentry::FileSystemStatus status = TRY(mount->file_system->Status());
    AbiUstat to{};
    to.blocks_free = static_cast<int32_t>(std::min<uint64_t>(status.blocks_free, 0x7fffffff));
    to.inodes_free = status.files_free;
    return task.CopyOut(UserOut<AbiUstat>(out), to);
  }
  return Errno(EINVAL);
}

}  // namespace syscalls
