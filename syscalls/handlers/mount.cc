// mount(2), umount2(2), pivot_root(2): arguments, rights and the order of checks; the changes
// themselves are in sentry/vfs/mounts.h.

#include "syscalls/handlers/mount.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>

#include <algorithm>
#include <bit>
#include <string>
#include <utility>
#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file_system_type.h"
#include "sentry/vfs/mount_rights.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::Path;
using sentry::Task;

namespace {

constexpr uint64_t kMagicMask = 0xffff0000;  // MS_MGC_MSK
constexpr uint64_t kMagic = 0xc0ed0000;      // MS_MGC_VAL
constexpr uint64_t kNoUser = uint64_t{1} << 31;
constexpr uint64_t kPropagation = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;

sentry::MountNamespace& SpaceOf(Task& task) { return *task.own_namespaces().mount; }

// A string argument of mount(2), or nothing if the pointer is null.
Result<std::string> CopyInOptional(Task& task, UserAddr addr) {
  if (addr.is_null()) return std::string();
  Result<std::string> text = task.memory().CopyInString(addr, base::kPageSize);
  if (!text.ok() && text.error() == ENAMETOOLONG) return Errno(EINVAL);
  return text;
}

Result<sentry::Propagation> PropagationOf(uint64_t flags) {
  const uint64_t wanted = flags & ~uint64_t{MS_REC | MS_SILENT};
  if ((wanted & ~kPropagation) != 0 || !std::has_single_bit(wanted)) return Errno(EINVAL);
  if (wanted == MS_SHARED) return sentry::Propagation::kShared;
  if (wanted == MS_SLAVE) return sentry::Propagation::kSlave;
  return wanted == MS_PRIVATE ? sentry::Propagation::kPrivate : sentry::Propagation::kUnbindable;
}

// mount -o remount: of the file system, and of this mount of it.
Result<void> Remount(Task& task, const Path& target, uint64_t flags, uint64_t mount_flags,
                     std::string_view data) {
  sentry::Mounts& mounts = VfsOf(task).mounts();
  if (!mounts.IsIn(*target.mount, SpaceOf(task))) return Errno(EINVAL);
  if (target.dentry != target.mount->root) return Errno(EINVAL);
  sentry::FileSystem& file_system = *target.mount->file_system;
  if (!task.own_credentials().HasCapabilityIn(file_system.owner(), CAP_SYS_ADMIN))
    return Errno(EPERM);
  TRY(sentry::Reconfigure(mounts, file_system, flags & sentry::kSuperSettable, data));
  return mounts.SetFlags(SpaceOf(task), target, mount_flags);
}

Result<void> NewMount(Task& task, const Path& target, const std::string& type,
                      const std::string& source, uint64_t flags, uint64_t mount_flags,
                      const std::string& data) {
  sentry::Vfs& vfs = VfsOf(task);
  sentry::FileSystemRef file_system =
      TRY(sentry::MakeFileSystem(task, type, source, data, flags & sentry::kSuperSettable));
  TRY(sentry::MayReveal(task, *file_system, &mount_flags));
  const sentry::MountRef mount =
      vfs.mounts().NewMount(std::move(file_system), source.empty() ? "none" : source, mount_flags);
  return vfs.mounts().Attach(SpaceOf(task), mount, target);
}

}  // namespace

Result<void> Mount(Task& task, UserAddr source_addr, UserAddr target_addr, UserAddr type_addr,
                   uint64_t flags, UserAddr data_addr) {
  const std::string type = TRY(CopyInOptional(task, type_addr));
  const std::string source = TRY(CopyInOptional(task, source_addr));
  std::string data;
  if (!data_addr.is_null()) data = TRY(sentry::CopyInMountData(task, data_addr));
  const Path target = TRY(WalkAt(task, AT_FDCWD, TRY(CopyInPath(task, target_addr)), 0));
  if ((flags & kMagicMask) == kMagic) flags &= ~kMagicMask;
  if ((flags & kNoUser) != 0) return Errno(EINVAL);
  if (!sentry::MayMount(task)) return Errno(EPERM);
  sentry::Mounts& mounts = VfsOf(task).mounts();
  sentry::MountNamespace& space = SpaceOf(task);
  uint64_t mount_flags = sentry::MountFlagsOf(flags);
  // What is not said of access times stays as it is.
  if ((flags & MS_REMOUNT) != 0 && (flags & sentry::kMountAtimeMask) == 0) {
    mount_flags &= ~sentry::kMountAtimeMask;
    mount_flags |= target.mount->flags.load(std::memory_order_relaxed) & sentry::kMountAtimeMask;
  }
  if ((flags & (MS_REMOUNT | MS_BIND)) == (MS_REMOUNT | MS_BIND))
    return mounts.SetFlags(space, target, mount_flags);
  if ((flags & MS_REMOUNT) != 0) return Remount(task, target, flags, mount_flags, data);
  if ((flags & MS_BIND) != 0) {
    if (source.empty()) return Errno(EINVAL);
    const Path from = TRY(WalkAt(task, AT_FDCWD, source, 0));
    TRY(mounts.Bind(space, from, target, (flags & MS_REC) != 0));
    return {};
  }
  if ((flags & kPropagation) != 0) {
    return mounts.SetPropagation(space, target, TRY(PropagationOf(flags)), (flags & MS_REC) != 0);
  }
  if ((flags & MS_MOVE) != 0) {
    if (source.empty()) return Errno(EINVAL);
    return mounts.Move(space, TRY(WalkAt(task, AT_FDCWD, source, 0)), target);
  }
  if (type_addr.is_null()) return Errno(EINVAL);
  return NewMount(task, target, type, source, flags, mount_flags, data);
}

Result<void> Umount2(Task& task, UserAddr target_addr, int32_t flags) {
  if ((flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW)) != 0) return Errno(EINVAL);
  const std::string path = TRY(CopyInPath(task, target_addr));
  sentry::Mounts& mounts = VfsOf(task).mounts();
  std::vector<uint64_t> marked;
  if ((flags & MNT_EXPIRE) != 0) marked = mounts.ExpiryMarks();
  // "." may have something on top of it (LOOKUP_MOUNTPOINT).
  const Path target = mounts.Topmost(
      TRY(WalkAt(task, AT_FDCWD, path, (flags & UMOUNT_NOFOLLOW) != 0 ? AT_SYMLINK_NOFOLLOW : 0)));
  if (!sentry::MayMount(task)) return Errno(EPERM);
  sentry::MountNamespace& space = SpaceOf(task);
  const sentry::Mount& mount = *target.mount;
  if (target.dentry != mount.root || !mounts.IsIn(mount, space) ||
      mount.has_flag(sentry::kMountLocked))
    return Errno(EINVAL);
  const bool rules =
      task.own_credentials().HasCapabilityIn(mount.file_system->owner(), CAP_SYS_ADMIN);
  if ((flags & MNT_FORCE) != 0 && !rules) return Errno(EPERM);
  const bool is_root = task.fs().root().mount == target.mount;
  if ((flags & MNT_EXPIRE) != 0 && (is_root || (flags & (MNT_FORCE | MNT_DETACH)) != 0))
    return Errno(EINVAL);
  if (is_root && (flags & MNT_DETACH) == 0) {
    // The root stays; it becomes read-only, as Linux has it.
    if (!rules) return Errno(EPERM);
    const uint64_t now = mount.file_system->super_flags();
    return sentry::Reconfigure(mounts, *mount.file_system, now | MS_RDONLY, {});
  }
  return mounts.Unmount(space, target, flags, 1,
                        std::find(marked.begin(), marked.end(), mount.unique_id) != marked.end());
}

Result<void> PivotRoot(Task& task, UserAddr new_root_addr, UserAddr put_old_addr) {
  if (!sentry::MayMount(task)) return Errno(EPERM);
  sentry::WalkOptions options;
  options.directory_only = true;
  sentry::Vfs& vfs = VfsOf(task);
  const Path new_root = TRY(vfs.Walk(task, {}, TRY(CopyInPath(task, new_root_addr)), options));
  const Path put_old = TRY(vfs.Walk(task, {}, TRY(CopyInPath(task, put_old_addr)), options));
  const Path root = task.fs().root();
  TRY(vfs.mounts().PivotRoot(SpaceOf(task), root, new_root, put_old));
  // Everybody who is at the old root goes to the new one.
  for (const sentry::TaskRef& each : task.kernel().pids().Tasks()) {
    if (const std::shared_ptr<sentry::FsContext> fs = each->fs_ref()) fs->MoveLater(root, new_root);
  }
  if (task.fs().has_to_move()) task.fs().MoveNow();
  return {};
}

}  // namespace syscalls
