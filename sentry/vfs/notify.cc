#include "sentry/vfs/notify.h"

#include <sys/inotify.h>

#include <algorithm>
#include <utility>

#include "sentry/vfs/dentry.h"
#include "sentry/vfs/inode_attachments.h"

namespace sentry {

void WatchList::Add(std::shared_ptr<Watch> watch) {
  const absl::MutexLock lock(&mu_);
  watches_.push_back(std::move(watch));
}

bool WatchList::Remove(const Watch& watch) {
  std::shared_ptr<Watch> removed;
  const absl::MutexLock lock(&mu_);
  const auto found =
      std::find_if(watches_.begin(), watches_.end(),
                   [&](const std::shared_ptr<Watch>& each) { return each.get() == &watch; });
  if (found == watches_.end()) return false;
  removed = std::move(*found);
  watches_.erase(found);
  return true;
}

void WatchList::Notify(uint32_t mask, std::string_view name, uint32_t cookie) {
  std::vector<std::shared_ptr<Watch>> watches;
  {
    const absl::MutexLock lock(&mu_);
    watches = watches_;
  }
  for (const std::shared_ptr<Watch>& watch : watches) watch->OnEvent(mask, name, cookie);
}

void AddWatch(Inode& inode, std::shared_ptr<Watch> watch) {
  inode.attachments().watches.Add(std::move(watch));
  inode.file_system().watch_count().fetch_add(1, std::memory_order_relaxed);
}

void RemoveWatch(Inode& inode, const Watch& watch) {
  if (!inode.attachments().watches.Remove(watch)) return;
  inode.file_system().watch_count().fetch_sub(1, std::memory_order_relaxed);
}

void NotifyInode(Inode& inode, uint32_t mask, std::string_view name, uint32_t cookie) {
  if (inode.file_system().watch_count().load(std::memory_order_relaxed) == 0) return;
  if (Inode::Attachments* attachments = inode.attachments_if_any())
    attachments->watches.Notify(mask, name, cookie);
}

void NotifyPath(const Path& path, uint32_t mask) {
  if (path.dentry == nullptr || path.dentry->is_negative()) return;
  Inode& inode = *path.dentry->inode();
  if (inode.file_system().watch_count().load(std::memory_order_relaxed) == 0) return;
  if (path.dentry->is_directory()) mask |= IN_ISDIR;
  const DentryRef parent = path.dentry->parent();
  if (parent != nullptr && !path.dentry->is_deleted())
    NotifyInode(*parent->inode(), mask, path.dentry->name());
  NotifyInode(inode, mask);
}

}  // namespace sentry
