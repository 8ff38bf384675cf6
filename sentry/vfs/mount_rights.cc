#include "sentry/vfs/mount_rights.h"

#include <linux/capability.h>
#include <sys/mount.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file_system_type.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

using base::Errno;
using base::Result;

bool MayMount(const Task& task) {
  return task.own_credentials().HasCapabilityIn(task.own_namespaces().mount->owner(),
                                                CAP_SYS_ADMIN);
}

Result<FileSystemRef> MakeFileSystem(Task& task, const FileSystemType& type,
                                     std::string_view source, std::string_view options,
                                     uint64_t super_flags) {
  const Credentials& who = task.own_credentials();
  if (type.in_user_namespaces ? !who.HasOwnCapability(CAP_SYS_ADMIN)
                              : !who.HasCapability(CAP_SYS_ADMIN))
    return Errno(EPERM);
  FileSystemRef made = TRY(type.make({.task = &task, .source = source, .options = options}));
  // One that is shared by several mounts keeps what it has.
  if (made->mount_count().load(std::memory_order_relaxed) == 0) {
    made->set_owner(who.user_namespace);
    made->set_super_flags(super_flags & ~uint64_t{MS_SILENT});
  }
  return made;
}

Result<FileSystemRef> MakeFileSystem(Task& task, std::string_view type, std::string_view source,
                                     std::string_view options, uint64_t super_flags) {
  const FileSystemType* found = task.kernel().vfs().file_system_types().Find(type);
  if (found == nullptr) return Errno(ENODEV);
  return MakeFileSystem(task, *found, source, options, super_flags);
}

Result<void> MayReveal(Task& task, const FileSystem& file_system, uint64_t* mount_flags) {
  if (!file_system.IsKernelView() || file_system.owner() == nullptr) return {};
  Mounts& mounts = task.kernel().vfs().mounts();
  const std::vector<MountView> views = mounts.Views(*task.own_namespaces().mount);
  for (const MountView& view : views) {
    const Mount& mount = *view.mount;
    if (mount.file_system->type_name() != file_system.type_name()) continue;
    if (mount.root->inode() != mount.file_system->root()) continue;
    const uint64_t flags = mount.flags.load(std::memory_order_relaxed);
    // Read-only that is locked, and access times, must be the same in the new one.
    if ((flags & kMountLockReadOnly) != 0 && (*mount_flags & MS_RDONLY) == 0) continue;
    if ((flags & kMountLockAtime) != 0 &&
        ((flags ^ *mount_flags) & (kMountAtimeMask & ~uint64_t{MS_STRICTATIME})) != 0)
      continue;
    const bool covered = std::any_of(views.begin(), views.end(), [&](const MountView& child) {
      return child.at.mount == view.mount && child.mount->has_flag(kMountLocked);
    });
    if (covered) continue;
    *mount_flags |= flags & (kMountLockReadOnly | kMountLockAtime);
    return {};
  }
  return Errno(EPERM);
}

Result<void> Reconfigure(Mounts& mounts, FileSystem& file_system, uint64_t super_flags,
                         std::string_view options) {
  const uint64_t before = file_system.super_flags();
  if ((super_flags & MS_RDONLY) != 0 && (before & MS_RDONLY) == 0 && mounts.HasWriters(file_system))
    return Errno(EBUSY);
  TRY(file_system.Reconfigure(options));
  file_system.set_super_flags(super_flags & ~uint64_t{MS_SILENT});
  return {};
}

Result<std::string> CopyInMountData(Task& task, base::UserAddr addr) {
  std::string data(base::kPageSize, '\0');
  const Result<size_t> copied =
      task.memory().CopyInBytes(addr, std::as_writable_bytes(std::span(data)));
  if (!copied.ok()) return copied.error();
  data.resize(std::min<size_t>(copied.value(), base::kPageSize - 1));
  data.resize(strnlen(data.data(), data.size()));
  return data;
}

}  // namespace sentry
