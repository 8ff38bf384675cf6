#pragma once

// One mounted file system instance (Linux's super_block).

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "platform/base/result.h"
#include "sentry/vfs/attributes.h"
#include "sentry/vfs/inode.h"

namespace sentry {

class FileSystem : public std::enable_shared_from_this<FileSystem> {
 public:
  virtual ~FileSystem() = default;
  // "tmpfs", "overlay", "proc", ... as in /proc/mounts.
  virtual std::string_view type_name() const = 0;
  virtual InodeRef root() = 0;
  virtual base::Result<FileSystemStatus> Status() = 0;
  // st_dev, unique in the sandbox (AllocateDevice).
  virtual uint64_t device() const = 0;
  virtual bool read_only() const { return false; }
  // False where another party changes the tree behind our back: dentries are asked again.
  virtual bool CachesDentries() const { return true; }
  // May a missing name be remembered? (False for proc.)
  virtual bool CachesNegatives() const { return true; }
  // For dentries found in the cache when !CachesDentries(): still the same object?
  virtual bool Revalidate(Inode& directory, std::string_view name, Inode& child) {
    (void)directory, (void)name, (void)child;
    return true;
  }
  // Mount options as in /proc/mounts, beyond rw/ro and flags.
  virtual std::string options() const { return {}; }
  virtual base::Result<void> Sync() { return {}; }

  // Watches on its inodes (notify.h).
  std::atomic<int>& watch_count() { return watch_count_; }

 private:
  std::atomic<int> watch_count_{0};
};

using FileSystemRef = std::shared_ptr<FileSystem>;

// Anonymous device numbers (major 0), as Linux's get_anon_bdev.
uint64_t AllocateDevice();

}  // namespace sentry
