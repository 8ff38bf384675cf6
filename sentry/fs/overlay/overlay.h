#pragma once

// A writable layer in memory over a file system that nobody changes (Linux's overlayfs, with the
// upper layer in the memory pool): the container's root over its image.
//
// Nothing but this file system ever sees the upper layer, so it has no directory tree of its own:
// each directory here is "what the lower one says, except for these names", and what is changed
// hangs on the inode object itself. So a lower directory is renamed by moving one pointer, hard
// links survive a copy-up, inode numbers never change, and no name is reserved for whiteouts.
// README.md has the whole picture.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/vfs/file_system.h"

namespace sentry {

class OverlayInode;

class Overlay final : public FileSystem {
 public:
  // `upper` is this overlay's alone: it accounts for inodes and pages. EIO and the like from the
  // lower root.
  static base::Result<std::shared_ptr<Overlay>> Create(FileSystemRef lower,
                                                       std::shared_ptr<Tmpfs> upper);
  Overlay(FileSystemRef lower, std::shared_ptr<Tmpfs> upper);
  ~Overlay() override;

  std::string_view type_name() const override { return "overlay"; }
  InodeRef root() override;
  base::Result<FileSystemStatus> Status() override;
  uint64_t device() const override { return device_; }

  // --- For the inodes.
  Tmpfs& upper() { return *upper_; }
  // The one object that stands for `lower`.
  base::Result<std::shared_ptr<OverlayInode>> Wrap(const InodeRef& lower) ABSL_LOCKS_EXCLUDED(mu_);
  // `inode` differs from its lower one now: it stays, used or not, until Unpin.
  void Pin(const std::shared_ptr<OverlayInode>& inode) ABSL_LOCKS_EXCLUDED(mu_);
  void Unpin(const OverlayInode& inode) ABSL_LOCKS_EXCLUDED(mu_);
  // The object for `lower` is being destroyed.
  void Forget(const Inode* lower) ABSL_LOCKS_EXCLUDED(mu_);
  // st_ino of what has no lower inode.
  static uint64_t NumberOfUpper(uint64_t number) { return (uint64_t{1} << 48) | number; }

 private:
  const FileSystemRef lower_;
  const std::shared_ptr<Tmpfs> upper_;
  const uint64_t device_;
  std::shared_ptr<OverlayInode> root_;

  absl::Mutex mu_;
  absl::flat_hash_map<const Inode*, std::weak_ptr<OverlayInode>> by_lower_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<const Inode*, std::shared_ptr<OverlayInode>> pinned_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
