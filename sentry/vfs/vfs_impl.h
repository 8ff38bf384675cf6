#pragma once

// What the files of the Vfs share.

#include <atomic>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "sentry/vfs/dentry_cache.h"
#include "sentry/vfs/file_lock.h"
#include "sentry/vfs/file_system_type.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

struct Vfs::Impl {
  const std::shared_ptr<Mounts> mounts = std::make_shared<Mounts>();
  DentryCache& cache = mounts->cache();
  LockWaits lock_waits;

  // Held while a directory changes its parent. Taken before any directory's change lock.
  absl::Mutex rename_mu;
  // Renames and mounts so far: a scoped walk that saw ".." must not have raced with one
  // (openat2(2), EAGAIN).
  std::atomic<uint64_t>& tree_changes = mounts->tree_changes();

  DeviceOpener device_opener;  // Set before the first task runs.
  FifoOpener fifo_opener;
  FileSystemTypes types;

  // The entry of `name`, or null if there is none. `locked`: the caller holds the directory's
  // change lock.
  base::Result<DentryRef> Lookup(const DentryRef& directory, std::string_view name, bool locked);
  // Along what is cached (QuickWalk). Null path: not sure; ENOENT is the only error.
  base::Result<Path> WalkQuickly(const Caller& caller, const Path& base, std::string_view path,
                                 const WalkOptions& options);
  // Something is mounted on it where the caller sees it: it must stay.
  bool IsMountpoint(const Caller& caller, const Dentry& dentry) const;
};

}  // namespace sentry
