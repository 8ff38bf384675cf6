#pragma once

// Where file system events leave the vfs for inotify(7). The vfs and the system-call layer report;
// whoever watches hangs a Watch on an inode. A file system nobody watches costs one relaxed load
// per event.

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/vfs/path.h"

namespace sentry {

class Inode;

class Watch {
 public:
  virtual ~Watch() = default;
  // `mask`: IN_* with IN_ISDIR where it applies. `name` is empty for events of the object itself.
  // `cookie` joins the two halves of a rename. Called with no lock of the vfs held other than
  // directories' change locks: must not walk paths. IN_DELETE_SELF and IN_UNMOUNT are the last
  // events of a watch; the receiver sends IN_IGNORED itself.
  virtual void OnEvent(uint32_t mask, std::string_view name, uint32_t cookie) = 0;
};

// The watches of one inode. Thread-safe.
class WatchList {
 public:
  void Add(std::shared_ptr<Watch> watch) ABSL_LOCKS_EXCLUDED(mu_);
  bool Remove(const Watch& watch) ABSL_LOCKS_EXCLUDED(mu_);
  void Notify(uint32_t mask, std::string_view name, uint32_t cookie) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Mutex mu_;
  std::vector<std::shared_ptr<Watch>> watches_ ABSL_GUARDED_BY(mu_);
};

// The watcher holds the Path of what it watches: that pins the dentry, and with it the inode
// object.
void AddWatch(Inode& inode, std::shared_ptr<Watch> watch);
void RemoveWatch(Inode& inode, const Watch& watch);

// To the watches of `inode` only.
void NotifyInode(Inode& inode, uint32_t mask, std::string_view name = {}, uint32_t cookie = 0);
// To the watches of what is at `path` and, with its name, to those of its directory (IN_ACCESS,
// IN_MODIFY, IN_ATTRIB, IN_OPEN, IN_CLOSE_*).
void NotifyPath(const Path& path, uint32_t mask);

}  // namespace sentry
