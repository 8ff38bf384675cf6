// mount(2), umount2(2): new instances of our own file systems, bind mounts, changes of flags. There
// is one mount namespace, so propagation has nowhere to go: those flags are accepted and mean
// nothing.

#include "syscalls/handlers/mount.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>

#include <string>

#include "sentry/kernel/task.h"
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
constexpr uint64_t kNoSymlinkFollow = 256;   // MS_NOSYMFOLLOW
constexpr uint64_t kPropagation = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;
constexpr uint64_t kPerMount = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME |
                               MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME | kNoSymlinkFollow;

// A string argument of mount(2), or nothing if the pointer is null.
Result<std::string> CopyInOptional(Task& task, UserAddr addr) {
  if (addr.is_null()) return std::string();
  return task.memory().CopyInString(addr, base::kPageSize);
}

Result<void> Remount(const Path& target, uint64_t flags) {
  if (target.dentry != target.mount->root) return Errno(EINVAL);
  target.mount->flags.store(flags & kPerMount, std::memory_order_relaxed);
  return {};
}

}  // namespace

Result<void> Mount(Task& task, UserAddr source_addr, UserAddr target_addr, UserAddr type_addr,
                   uint64_t flags, UserAddr data_addr) {
  const std::string type = TRY(CopyInOptional(task, type_addr));
  const std::string source = TRY(CopyInOptional(task, source_addr));
  const std::string data = TRY(CopyInOptional(task, data_addr));
  const Path target = TRY(WalkAt(task, AT_FDCWD, TRY(CopyInPath(task, target_addr)), 0));
  if (!task.own_credentials().HasCapability(CAP_SYS_ADMIN)) return Errno(EPERM);
  if ((flags & kMagicMask) == kMagic) flags &= ~kMagicMask;
  sentry::Vfs& vfs = VfsOf(task);
  if ((flags & MS_REMOUNT) != 0) return Remount(target, flags);
  if ((flags & MS_BIND) != 0) {
    if (source.empty()) return Errno(ENOENT);
    TRY(vfs.Bind(TRY(WalkAt(task, AT_FDCWD, source, 0)), target, (flags & MS_REC) != 0));
    return {};
  }
  if ((flags & kPropagation) != 0) {
    if (target.dentry != target.mount->root) return Errno(EINVAL);
    return {};
  }
  if ((flags & MS_MOVE) != 0) return Errno(EINVAL);
  if (type_addr.is_null()) return Errno(EINVAL);
  sentry::FileSystemRef file_system = TRY(vfs.MakeFileSystem(task, type, data));
  TRY(vfs.MountAt(target, std::move(file_system), source.empty() ? "none" : source,
                  flags & kPerMount));
  return {};
}

Result<void> Umount2(Task& task, UserAddr target_addr, int32_t flags) {
  if ((flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW)) != 0) return Errno(EINVAL);
  if ((flags & MNT_EXPIRE) != 0)
    return Errno((flags & (MNT_FORCE | MNT_DETACH)) != 0 ? EINVAL : EAGAIN);
  const std::string path = TRY(CopyInPath(task, target_addr));
  const Path target =
      TRY(WalkAt(task, AT_FDCWD, path, (flags & UMOUNT_NOFOLLOW) != 0 ? AT_SYMLINK_NOFOLLOW : 0));
  if (!task.own_credentials().HasCapability(CAP_SYS_ADMIN)) return Errno(EPERM);
  return VfsOf(task).Unmount(target, flags);
}

}  // namespace syscalls
