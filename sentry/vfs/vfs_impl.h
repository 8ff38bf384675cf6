#pragma once

// What the files of the Vfs share.

#include <atomic>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/vfs/dentry_cache.h"
#include "sentry/vfs/file_lock.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

struct Vfs::Impl {
  DentryCache cache;
  LockWaits lock_waits;

  // Held while a directory changes its parent. Taken before any directory's change lock.
  absl::Mutex rename_mu;
  // Renames and mounts so far: a scoped walk that saw ".." must not have raced with one
  // (openat2(2), EAGAIN).
  std::atomic<uint64_t> tree_changes{0};

  mutable absl::Mutex mount_mu;
  using MountPlace = std::pair<const Mount*, const Dentry*>;
  std::vector<MountRef> mounts ABSL_GUARDED_BY(mount_mu);
  absl::flat_hash_map<MountPlace, MountRef> attached ABSL_GUARDED_BY(mount_mu);
  // One tree of dentries per file system, whatever the number of its mounts.
  absl::flat_hash_map<const FileSystem*, std::weak_ptr<Dentry>> roots ABSL_GUARDED_BY(mount_mu);
  uint64_t next_mount_id ABSL_GUARDED_BY(mount_mu) = 20;
  Path root ABSL_GUARDED_BY(mount_mu);

  DeviceOpener device_opener;  // Set before the first task runs.
  FifoOpener fifo_opener;
  std::map<std::string, FileSystemFactory, std::less<>> factories;

  // The entry of `name`, or null if there is none. `locked`: the caller holds the directory's
  // change lock.
  base::Result<DentryRef> Lookup(const DentryRef& directory, std::string_view name, bool locked);
  // Along what is cached (QuickWalk). Null path: not sure; ENOENT is the only error.
  base::Result<Path> WalkQuickly(const Caller& caller, const Path& base, std::string_view path,
                                 const WalkOptions& options);
  // What is mounted on top of `path`, or `path` itself.
  Path Topmost(Path path) const ABSL_LOCKS_EXCLUDED(mount_mu);
  // Likewise what is mounted on `dentry` itself; null if nothing.
  Path TopmostOf(const Mount& mount, const Dentry& dentry) const ABSL_LOCKS_EXCLUDED(mount_mu);
  // The place where path.mount is attached; null if nowhere. Precondition: path is the root of its
  // mount.
  Path Mountpoint(const Path& path) const ABSL_LOCKS_EXCLUDED(mount_mu);
  Path Root() const ABSL_LOCKS_EXCLUDED(mount_mu);

  DentryRef RootDentry(FileSystem& file_system) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mount_mu);
  // Puts `mount` on the topmost thing at `at`.
  base::Result<void> Attach(const MountRef& mount, Path at) ABSL_LOCKS_EXCLUDED(mount_mu);
  void DetachLocked(const MountRef& mount) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mount_mu);
};

}  // namespace sentry
