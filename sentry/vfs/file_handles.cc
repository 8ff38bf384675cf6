#include "sentry/vfs/file_handles.h"

#include <cerrno>

#include "sentry/vfs/dentry.h"
#include "sentry/vfs/inode.h"

namespace sentry {

using base::Errno;
using base::Result;

Result<FileHandle> FileHandles::HandleOf(const Path& path) {
  const Attributes attributes = TRY(path.dentry->inode()->GetAttributes());
  const Identity identity{attributes.device, attributes.inode};
  Path forgotten;  // Let go of after the lock, as is the name that is replaced.
  const absl::MutexLock lock(&mu_);
  const auto known = by_identity_.find(identity);
  if (known != by_identity_.end()) {
    entries_.splice(entries_.begin(), entries_, known->second);
    Entry& entry = entries_.front();
    // Another name of it may live longer.
    if (entry.path.dentry->is_deleted()) forgotten = std::exchange(entry.path, path);
    return entry.handle;
  }
  if (entries_.size() >= kRememberedMax) {
    Entry& oldest = entries_.back();
    forgotten = std::move(oldest.path);
    by_identity_.erase(oldest.identity);
    by_number_.erase(oldest.handle.number);
    entries_.pop_back();
  }
  const FileHandle handle{next_++, random_.Next()};
  entries_.push_front({identity, handle, path});
  by_identity_[identity] = entries_.begin();
  by_number_[handle.number] = entries_.begin();
  return handle;
}

Result<Path> FileHandles::Find(const FileHandle& handle) {
  Path path;
  {
    const absl::MutexLock lock(&mu_);
    const auto known = by_number_.find(handle.number);
    if (known == by_number_.end() || known->second->handle != handle) return Errno(ESTALE);
    path = known->second->path;
  }
  const Result<Attributes> attributes = path.dentry->inode()->GetAttributes();
  if (!attributes.ok() || attributes.value().nlink == 0) return Errno(ESTALE);
  return path;
}

}  // namespace sentry
