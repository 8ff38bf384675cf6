#pragma once

// Names: the cached tree of directory entries of one file system. Mounts join such trees (mount.h).

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/vfs/file_system.h"
#include "sentry/vfs/path.h"

namespace sentry {

// A name in a directory. Negative (no inode) entries remember that a name does not exist. A dentry
// keeps its parent alive; a directory keeps its cached children alive, within the cache's bound
// (dentry_cache.h).
class Dentry : public std::enable_shared_from_this<Dentry> {
 public:
  Dentry(std::shared_ptr<Dentry> parent, std::string name, InodeRef inode);
  Dentry(const Dentry&) = delete;
  Dentry& operator=(const Dentry&) = delete;
  ~Dentry();

  const InodeRef& inode() const { return inode_; }  // Null if negative. Immutable.
  bool is_negative() const { return inode_ == nullptr; }
  bool is_directory() const { return inode_ != nullptr && inode_->type() == S_IFDIR; }
  bool is_symlink() const { return inode_ != nullptr && inode_->type() == S_IFLNK; }
  // Change under the rename lock of the Vfs.
  std::shared_ptr<Dentry> parent() const ABSL_LOCKS_EXCLUDED(name_mu_);
  std::string name() const ABSL_LOCKS_EXCLUDED(name_mu_);
  bool is_root() const { return parent() == nullptr; }
  // Without a reference: for a read section (read_sections.h), or whoever holds the dentry and the
  // rename lock.
  Dentry* parent_unreferenced() const { return parent_now_.load(std::memory_order_acquire); }
  // In the table of its directory. One that was found without a lock and is referenced since is as
  // good as one that was found under the lock if this is still true.
  bool is_indexed() const { return indexed_.load(std::memory_order_seq_cst); }
  // Unlinked or replaced: not reachable by its name any more ("(deleted)" in /proc).
  bool is_deleted() const { return deleted_.load(std::memory_order_acquire); }
  // True if a mount is attached here in some mount of this file system.
  bool has_mounts() const { return mounts_here_.load(std::memory_order_acquire) > 0; }

  // The cache's clock passes it over once more.
  void MarkUsed() {
    // Most are marked: no write to a line that all readers share.
    if (!referenced_.load(std::memory_order_relaxed))
      referenced_.store(true, std::memory_order_relaxed);
  }

  // Serialises changes of this directory (Linux's i_rwsem): held for writing around Create..
  // Rename, for reading around Lookup. Parents before children; two unrelated ones only under the
  // Vfs's rename lock.
  absl::Mutex& change_mutex() ABSL_LOCK_RETURNED(change_mu_) { return change_mu_; }

 private:
  friend class DentryCache;
  friend class DentryIndex;
  friend class Mounts;
  friend class Vfs;

  const FileSystemRef
      file_system_;  // Of a root only: so the file system outlives all dentries of its tree.
  InodeRef inode_;
  std::atomic<bool> deleted_{false};
  std::atomic<bool> referenced_{true};  // Used since the cache's clock hand passed.
  std::atomic<int> mounts_here_{0};
  absl::Mutex change_mu_;
  mutable absl::Mutex children_mu_ ABSL_ACQUIRED_AFTER(change_mu_);
  absl::flat_hash_map<std::string, std::shared_ptr<Dentry>> children_ ABSL_GUARDED_BY(children_mu_);
  mutable absl::Mutex name_mu_ ABSL_ACQUIRED_AFTER(children_mu_);
  std::shared_ptr<Dentry> parent_ ABSL_GUARDED_BY(name_mu_);
  const std::string first_name_;
  std::shared_ptr<const std::string> new_name_ ABSL_GUARDED_BY(name_mu_);  // Once renamed.

  // --- For those who read without locks. What parent_ and the name are; whatever one of these has
  // pointed to lives until the sections have ended that may have seen it.
  std::atomic<Dentry*> parent_now_;
  std::atomic<const std::string*> name_now_;
  // In the DentryIndex.
  std::atomic<uint64_t> index_hash_{0};
  std::atomic<Dentry*> index_next_{nullptr};
  std::atomic<bool> indexed_{false};
};

using DentryRef = std::shared_ptr<Dentry>;

}  // namespace sentry
