// The calls that make mounts by steps: fsopen(2), fsconfig(2), fsmount(2), fspick(2),
// open_tree(2), move_mount(2), mount_setattr(2).

#include "syscalls/handlers/mount_api.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sys/mount.h>

#include <array>
#include <bit>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "sentry/fs/anon/mount_files.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/mount_rights.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::MountContextFile;
using sentry::Path;
using sentry::Task;

namespace {

constexpr uint64_t kAttributeNoSymlinkFollow = 0x200000;  // MOUNT_ATTR_NOSYMFOLLOW
constexpr uint64_t kAttributeIdMap = 0x100000;            // MOUNT_ATTR_IDMAP
constexpr uint64_t kAtimeAttributes = 0x70;               // MOUNT_ATTR__ATIME
constexpr uint64_t kKnownAttributes =
    0x7 | 0x8 | kAtimeAttributes | 0x80 | kAttributeNoSymlinkFollow;
constexpr uint32_t kSetGroup = 0x100;     // MOVE_MOUNT_SET_GROUP
constexpr uint32_t kBeneath = 0x200;      // MOVE_MOUNT_BENEATH
constexpr uint32_t kCreateExclusive = 8;  // FSCONFIG_CMD_CREATE_EXCL
constexpr size_t kParameterBytesMax = 256;

// struct mount_attr
struct MountAttributes {
  uint64_t set, clear, propagation, user_namespace_fd;
};

sentry::MountNamespace& SpaceOf(Task& task) { return *task.own_namespaces().mount; }

Result<uint64_t> AtimeFlags(uint64_t attributes) {
  switch (attributes & kAtimeAttributes) {
    case 0:
      return uint64_t{MS_RELATIME};
    case 0x10:
      return uint64_t{MS_NOATIME};
    case 0x20:
      return uint64_t{MS_STRICTATIME};
    default:
      return Errno(EINVAL);
  }
}

// MOUNT_ATTR_* but for access times, as MS_*.
uint64_t FlagsOf(uint64_t attributes) {
  uint64_t flags = 0;
  if ((attributes & 1) != 0) flags |= MS_RDONLY;
  if ((attributes & 2) != 0) flags |= MS_NOSUID;
  if ((attributes & 4) != 0) flags |= MS_NODEV;
  if ((attributes & 8) != 0) flags |= MS_NOEXEC;
  if ((attributes & 0x80) != 0) flags |= MS_NODIRATIME;
  if ((attributes & kAttributeNoSymlinkFollow) != 0) flags |= sentry::kMountNoSymlinkFollow;
  return flags;
}

// A string of at most `bytes_max` bytes with its NUL. EINVAL.
Result<std::string> CopyInName(Task& task, UserAddr addr, size_t bytes_max) {
  Result<std::string> text = task.memory().CopyInString(addr, bytes_max);
  if (!text.ok() && text.error() == ENAMETOOLONG) return Errno(EINVAL);
  return text;
}

Result<std::shared_ptr<MountContextFile>> ContextOf(Task& task, int32_t fd) {
  if (fd < 0) return Errno(EBADF);
  const sentry::FileRef file = TRY(task.fds().GetForIo(fd));
  auto context = std::dynamic_pointer_cast<MountContextFile>(file);
  if (context == nullptr) return Errno(EINVAL);
  return context;
}

Result<Path> WalkWithEmpty(Task& task, int32_t fd, UserAddr path_addr, bool empty_allowed,
                           bool follow) {
  const std::string path = TRY(CopyInPath(task, path_addr));
  const int32_t flags = (empty_allowed ? AT_EMPTY_PATH : 0) | (follow ? 0 : AT_SYMLINK_NOFOLLOW);
  return WalkAt(task, fd, path, flags);
}

}  // namespace

Result<int32_t> Fsopen(Task& task, UserAddr type_addr, uint32_t flags) {
  if (!sentry::MayMount(task)) return Errno(EPERM);
  if ((flags & ~uint32_t{FSOPEN_CLOEXEC}) != 0) return Errno(EINVAL);
  const std::string name = TRY(CopyInName(task, type_addr, base::kPageSize));
  const sentry::FileSystemType* type = VfsOf(task).file_system_types().Find(name);
  if (type == nullptr) return Errno(ENODEV);
  return task.InstallFile(std::make_shared<MountContextFile>(task, name, *type),
                          (flags & FSOPEN_CLOEXEC) != 0);
}

Result<int32_t> Fspick(Task& task, int32_t directory_fd, UserAddr path, uint32_t flags) {
  constexpr uint32_t kKnown =
      FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW | FSPICK_NO_AUTOMOUNT | FSPICK_EMPTY_PATH;
  if (!sentry::MayMount(task)) return Errno(EPERM);
  if ((flags & ~kKnown) != 0) return Errno(EINVAL);
  const Path target = TRY(WalkWithEmpty(task, directory_fd, path, (flags & FSPICK_EMPTY_PATH) != 0,
                                        (flags & FSPICK_SYMLINK_NOFOLLOW) == 0));
  if (target.dentry != target.mount->root) return Errno(EINVAL);
  return task.InstallFile(std::make_shared<MountContextFile>(task, target.mount->file_system),
                          (flags & FSPICK_CLOEXEC) != 0);
}

Result<void> Fsconfig(Task& task, int32_t fd, uint32_t command, UserAddr key_addr,
                      UserAddr value_addr, int32_t extra) {
  const bool has_key = !key_addr.is_null();
  const bool has_value = !value_addr.is_null();
  if (fd < 0) return Errno(EINVAL);
  switch (command) {
    case FSCONFIG_SET_FLAG:
      if (!has_key || has_value || extra != 0) return Errno(EINVAL);
      break;
    case FSCONFIG_SET_STRING:
      if (!has_key || !has_value || extra != 0) return Errno(EINVAL);
      break;
    case FSCONFIG_SET_BINARY:
      if (!has_key || !has_value || extra <= 0 || extra > 1024 * 1024) return Errno(EINVAL);
      break;
    case FSCONFIG_SET_PATH:
    case FSCONFIG_SET_PATH_EMPTY:
      if (!has_key || !has_value || (extra != AT_FDCWD && extra < 0)) return Errno(EINVAL);
      break;
    case FSCONFIG_SET_FD:
      if (!has_key || has_value || extra < 0) return Errno(EINVAL);
      break;
    case FSCONFIG_CMD_CREATE:
    case FSCONFIG_CMD_RECONFIGURE:
    case kCreateExclusive:
      if (has_key || has_value || extra != 0) return Errno(EINVAL);
      break;
    default:
      return Errno(EOPNOTSUPP);
  }
  const std::shared_ptr<MountContextFile> context = TRY(ContextOf(task, fd));
  if (command == FSCONFIG_CMD_CREATE || command == kCreateExclusive) return context->Create(task);
  if (command == FSCONFIG_CMD_RECONFIGURE) return context->Reconfigure(task);
  const std::string key = TRY(CopyInName(task, key_addr, kParameterBytesMax));
  if (command == FSCONFIG_SET_FLAG) return context->SetParameter(key, {}, false);
  if (command == FSCONFIG_SET_STRING)
    return context->SetParameter(key, TRY(CopyInName(task, value_addr, kParameterBytesMax)), true);
  // No file system here takes a blob, a path or a descriptor.
  return context->Refuse(key);
}

Result<int32_t> Fsmount(Task& task, int32_t fd, uint32_t flags, uint32_t attributes) {
  if (!sentry::MayMount(task)) return Errno(EPERM);
  if ((flags & ~uint32_t{FSMOUNT_CLOEXEC}) != 0) return Errno(EINVAL);
  if ((attributes & ~kKnownAttributes) != 0) return Errno(EINVAL);
  uint64_t mount_flags = FlagsOf(attributes) | TRY(AtimeFlags(attributes));
  const std::shared_ptr<MountContextFile> context = TRY(ContextOf(task, fd));
  const sentry::FileSystemRef file_system = TRY(context->Take(task, &mount_flags));
  sentry::Mounts& mounts = VfsOf(task).mounts();
  const sentry::MountRef mount = mounts.NewMount(file_system, context->source(), mount_flags);
  sentry::MountNamespaceRef tree = mounts.DetachedTree(SpaceOf(task), mount);
  auto file =
      std::make_shared<sentry::DetachedTreeFile>(Path{mount, mount->root}, task, std::move(tree));
  return task.InstallFile(std::move(file), (flags & FSMOUNT_CLOEXEC) != 0);
}

Result<void> MoveMount(Task& task, int32_t from_fd, UserAddr from_path, int32_t to_fd,
                       UserAddr to_path, uint32_t flags) {
  constexpr uint32_t kKnown = 0x77 | kSetGroup | kBeneath;
  if (!sentry::MayMount(task)) return Errno(EPERM);
  if ((flags & ~kKnown) != 0) return Errno(EINVAL);
  if ((flags & (kBeneath | kSetGroup)) == (kBeneath | kSetGroup)) return Errno(EINVAL);
  const Path from =
      TRY(WalkWithEmpty(task, from_fd, from_path, (flags & MOVE_MOUNT_F_EMPTY_PATH) != 0,
                        (flags & MOVE_MOUNT_F_SYMLINKS) != 0));
  const Path to = TRY(WalkWithEmpty(task, to_fd, to_path, (flags & MOVE_MOUNT_T_EMPTY_PATH) != 0,
                                    (flags & MOVE_MOUNT_T_SYMLINKS) != 0));
  sentry::Mounts& mounts = VfsOf(task).mounts();
  if ((flags & kSetGroup) != 0) return mounts.JoinGroup(SpaceOf(task), from, to);
  if ((flags & kBeneath) != 0) return Errno(EINVAL);
  return mounts.Move(SpaceOf(task), from, to);
}

Result<int32_t> OpenTree(Task& task, int32_t directory_fd, UserAddr path, uint32_t flags) {
  constexpr uint32_t kKnown = AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW |
                              OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
  if ((flags & ~kKnown) != 0) return Errno(EINVAL);
  if ((flags & (AT_RECURSIVE | OPEN_TREE_CLONE)) == AT_RECURSIVE) return Errno(EINVAL);
  const bool clones = (flags & OPEN_TREE_CLONE) != 0;
  if (clones && !sentry::MayMount(task)) return Errno(EPERM);
  const Path source = TRY(WalkWithEmpty(task, directory_fd, path, (flags & AT_EMPTY_PATH) != 0,
                                        (flags & AT_SYMLINK_NOFOLLOW) == 0));
  const bool close_on_exec = (flags & OPEN_TREE_CLOEXEC) != 0;
  if (!clones)
    return task.InstallFile(TRY(VfsOf(task).OpenPath(task, source, O_PATH)), close_on_exec);
  Path root;
  sentry::MountNamespaceRef tree = TRY(
      VfsOf(task).mounts().CloneTree(SpaceOf(task), source, (flags & AT_RECURSIVE) != 0, &root));
  return task.InstallFile(
      std::make_shared<sentry::DetachedTreeFile>(std::move(root), task, std::move(tree)),
      close_on_exec);
}

Result<void> MountSetattr(Task& task, int32_t directory_fd, UserAddr path, uint32_t flags,
                          UserAddr attributes_addr, uint64_t bytes) {
  constexpr uint32_t kKnown = AT_EMPTY_PATH | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
  if ((flags & ~kKnown) != 0) return Errno(EINVAL);
  if (bytes > base::kPageSize) return Errno(E2BIG);
  if (bytes < sizeof(MountAttributes)) return Errno(EINVAL);
  if (!sentry::MayMount(task)) return Errno(EPERM);
  std::array<std::byte, base::kPageSize> raw{};
  TRY(task.memory().CopyInExactly(attributes_addr, std::span(raw).first(bytes)));
  for (size_t i = sizeof(MountAttributes); i < bytes; ++i) {
    if (raw[i] != std::byte{0}) return Errno(E2BIG);
  }
  MountAttributes wanted{};
  std::memcpy(&wanted, raw.data(), sizeof wanted);
  if (wanted.set == 0 && wanted.clear == 0 && wanted.propagation == 0) return {};
  constexpr uint64_t kPropagation = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;
  if ((wanted.propagation & ~kPropagation) != 0 ||
      (wanted.propagation != 0 && !std::has_single_bit(wanted.propagation)))
    return Errno(EINVAL);
  // Id-mapped mounts are for file systems that allow them, and none here does.
  if (((wanted.set | wanted.clear) & ~(kKnownAttributes | kAttributeIdMap)) != 0 ||
      ((wanted.set | wanted.clear) & kAttributeIdMap) != 0)
    return Errno(EINVAL);
  sentry::MountChange change;
  change.set = FlagsOf(wanted.set);
  change.clear = FlagsOf(wanted.clear);
  if ((wanted.clear & kAtimeAttributes) != 0) {
    if ((wanted.clear & kAtimeAttributes) != kAtimeAttributes) return Errno(EINVAL);
    change.clear |= MS_RELATIME | MS_NOATIME | MS_STRICTATIME;
    change.set |= TRY(AtimeFlags(wanted.set));
  } else if ((wanted.set & kAtimeAttributes) != 0) {
    return Errno(EINVAL);
  }
  if (wanted.propagation != 0) {
    change.has_propagation = true;
    change.propagation = wanted.propagation == MS_SHARED    ? sentry::Propagation::kShared
                         : wanted.propagation == MS_SLAVE   ? sentry::Propagation::kSlave
                         : wanted.propagation == MS_PRIVATE ? sentry::Propagation::kPrivate
                                                            : sentry::Propagation::kUnbindable;
  }
  const Path target = TRY(WalkWithEmpty(task, directory_fd, path, (flags & AT_EMPTY_PATH) != 0,
                                        (flags & AT_SYMLINK_NOFOLLOW) == 0));
  return VfsOf(task).mounts().Change(SpaceOf(task), target, change, (flags & AT_RECURSIVE) != 0);
}

}  // namespace syscalls
