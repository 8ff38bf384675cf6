#pragma once

// One mounted file system instance (Linux's super_block).

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "platform/base/result.h"
#include "sentry/kernel/namespace.h"
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
  virtual bool read_only() const { return (super_flags() & kReadOnly) != 0; }
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
  // mount -o remount: other options for the living instance. EINVAL for what it does not know.
  virtual base::Result<void> Reconfigure(std::string_view options) {
    return options.empty() ? base::Result<void>() : base::Errno(EINVAL);
  }
  // May each of its inodes be reached by a user namespace that mounts another instance? Of proc
  // and sysfs: hiding parts of one mount must not be undone by another (mount_too_revealing).
  virtual bool IsKernelView() const { return false; }

  // MS_RDONLY, MS_SYNCHRONOUS, MS_DIRSYNC, MS_LAZYTIME, ... of mount(2).
  uint64_t super_flags() const { return super_flags_.load(std::memory_order_relaxed); }
  void set_super_flags(uint64_t flags) { super_flags_.store(flags, std::memory_order_relaxed); }
  // Whose capabilities rule it; null: the initial user namespace. Set before it is mounted.
  const UserNamespaceRef& owner() const { return owner_; }
  void set_owner(UserNamespaceRef owner) { owner_ = std::move(owner); }
  // Mounts that show it, attached or not.
  std::atomic<int64_t>& mount_count() { return mount_count_; }
  virtual base::Result<void> Sync() { return {}; }

  // Watches on its inodes (notify.h).
  std::atomic<int>& watch_count() { return watch_count_; }

 private:
  static constexpr uint64_t kReadOnly = 1;  // MS_RDONLY

  std::atomic<int> watch_count_{0};
  std::atomic<uint64_t> super_flags_{0};
  std::atomic<int64_t> mount_count_{0};
  UserNamespaceRef owner_;
};

using FileSystemRef = std::shared_ptr<FileSystem>;

// Anonymous device numbers (major 0), as Linux's get_anon_bdev.
uint64_t AllocateDevice();

}  // namespace sentry
