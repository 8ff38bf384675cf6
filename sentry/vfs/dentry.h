#pragma once

// Names: the cached tree of directory entries of one file system, and the mounts that join trees.

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/vfs/file_system.h"
#include "sentry/vfs/path.h"

namespace sentry {

// A name in a directory. Negative (no inode) entries remember that a name does not exist. A dentry keeps its parent
// alive; a directory keeps its cached children alive, within the cache's bound.
class Dentry : public std::enable_shared_from_this<Dentry> {
 public:
  Dentry(std::shared_ptr<Dentry> parent, std::string name, InodeRef inode);

  const InodeRef& inode() const { return inode_; }  // Null if negative. Immutable.
  // Change under the rename lock of the Vfs.
  std::shared_ptr<Dentry> parent() const;
  std::string name() const;
  bool is_root() const { return parent() == nullptr; }
  // Unlinked or replaced: not reachable by its name any more ("(deleted)" in /proc).
  bool is_deleted() const { return deleted_.load(std::memory_order_acquire); }

 private:
  friend class Vfs;
  friend class PathWalker;
  InodeRef inode_;
  mutable absl::Mutex name_mu_;
  std::shared_ptr<Dentry> parent_ ABSL_GUARDED_BY(name_mu_);
  std::string name_ ABSL_GUARDED_BY(name_mu_);
  std::atomic<bool> deleted_{false};
  std::atomic<int> mounts_here_{0};
  mutable absl::Mutex children_mu_;  // Also serialises changes of this directory.
  absl::flat_hash_map<std::string, std::shared_ptr<Dentry>> children_ ABSL_GUARDED_BY(children_mu_);
};

// A file system (or a subtree of one: bind) attached at a place. Part of one MountNamespace.
class Mount : public std::enable_shared_from_this<Mount> {
 public:
  FileSystemRef file_system;
  std::shared_ptr<Dentry> root;
  // Where it is attached; null parent for the namespace's root. Guarded by the Vfs's mount lock.
  std::weak_ptr<Mount> parent;
  std::shared_ptr<Dentry> mountpoint;
  uint64_t id = 0;
  std::string source;  // As given to mount(2).
  std::atomic<uint64_t> flags{0};  // MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, ...
  bool read_only() const;
};

}  // namespace sentry
