// rename(2). Two directories change at once; the lock order is in README.md.

#include <linux/fs.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <utility>

#include "sentry/vfs/notify.h"
#include "sentry/vfs/path_walk.h"
#include "sentry/vfs/vfs_impl.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

bool IsAncestor(const DentryRef& ancestor, DentryRef of) {
  while (of != nullptr) {
    if (of == ancestor) return true;
    of = of->parent();
  }
  return false;
}

// The change locks of both directories: the ancestor first; unrelated ones in any order, since the
// rename lock is held then.
class DirectoryPairLock {
 public:
  DirectoryPairLock(absl::Mutex& rename_mu, const DentryRef& a,
                    const DentryRef& b) ABSL_NO_THREAD_SAFETY_ANALYSIS : first_(a),
                                                                         second_(b) {
    if (a == b) {
      second_ = nullptr;
    } else {
      rename_mu_ = &rename_mu;
      rename_mu.Lock();
      if (!IsAncestor(a, b)) std::swap(first_, second_);
    }
    first_->change_mutex().Lock();
    if (second_ != nullptr) second_->change_mutex().Lock();
  }
  DirectoryPairLock(const DirectoryPairLock&) = delete;
  DirectoryPairLock& operator=(const DirectoryPairLock&) = delete;
  ~DirectoryPairLock() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (second_ != nullptr) second_->change_mutex().Unlock();
    first_->change_mutex().Unlock();
    if (second_ == nullptr) return;
    // The order of these two was a choice of the moment.
    first_->change_mutex().ForgetDeadlockInfo();
    second_->change_mutex().ForgetDeadlockInfo();
    rename_mu_->Unlock();
  }

 private:
  DentryRef first_;
  DentryRef second_;
  absl::Mutex* rename_mu_ = nullptr;
};

struct RenameStep {
  const PathWalker& from;
  const PathWalker& to;
  DentryRef moved;
  DentryRef replaced;  // May be null.
  uint32_t flags;
  bool exchange() const { return (flags & RENAME_EXCHANGE) != 0; }
};

Result<void> CheckNames(const RenameStep& step) {
  if (step.moved == nullptr) return Errno(ENOENT);
  if ((step.flags & RENAME_NOREPLACE) != 0 && step.replaced != nullptr) return Errno(EEXIST);
  if (step.exchange()) {
    if (step.replaced == nullptr) return Errno(ENOENT);
    if (!step.replaced->is_directory() && step.to.must_be_directory()) return Errno(ENOTDIR);
  }
  if (!step.moved->is_directory()) {
    if (step.from.must_be_directory()) return Errno(ENOTDIR);
    if (!step.exchange() && step.to.must_be_directory()) return Errno(ENOTDIR);
  }
  // Neither may contain the other's directory.
  if (IsAncestor(step.moved, step.to.directory().dentry)) return Errno(EINVAL);
  if (step.replaced != nullptr && IsAncestor(step.replaced, step.from.directory().dentry)) {
    return Errno(step.exchange() ? EINVAL : ENOTEMPTY);
  }
  return {};
}

Result<void> CheckRights(const Vfs::Impl& vfs, const Caller& caller, const RenameStep& step) {
  Dentry& from = *step.from.directory().dentry;
  Dentry& to = *step.to.directory().dentry;
  const bool is_directory = step.moved->is_directory();
  TRY(MayDelete(caller, from, *step.moved, is_directory));
  if (step.replaced == nullptr) {
    TRY(MayCreate(caller, to));
  } else {
    TRY(MayDelete(caller, to, *step.replaced,
                  step.exchange() ? step.replaced->is_directory() : is_directory));
  }
  if (&from != &to) {
    // A directory's ".." changes.
    if (is_directory) TRY(step.moved->inode()->CheckPermission(caller.credentials(), W_OK));
    if (step.exchange() && step.replaced->is_directory()) {
      TRY(step.replaced->inode()->CheckPermission(caller.credentials(), W_OK));
    }
  }
  if (vfs.IsMountpoint(caller, *step.moved)) return Errno(EBUSY);
  if (step.replaced != nullptr && vfs.IsMountpoint(caller, *step.replaced)) return Errno(EBUSY);
  return {};
}

void NotifyRename(const RenameStep& step) {
  Inode& from = *step.from.directory().dentry->inode();
  Inode& to = *step.to.directory().dentry->inode();
  if (from.file_system().watch_count().load(std::memory_order_relaxed) == 0) return;
  static std::atomic<uint32_t> next_cookie{1};
  const auto notify = [&](Inode& old_parent, std::string_view old_name, Inode& new_parent,
                          std::string_view new_name, const Dentry& moved) {
    const uint32_t cookie = next_cookie.fetch_add(1, std::memory_order_relaxed);
    const uint32_t directory = moved.is_directory() ? IN_ISDIR : 0;
    NotifyInode(old_parent, IN_MOVED_FROM | directory, old_name, cookie);
    NotifyInode(new_parent, IN_MOVED_TO | directory, new_name, cookie);
    NotifyInode(*moved.inode(), IN_MOVE_SELF);
  };
  notify(from, step.from.last(), to, step.to.last(), *step.moved);
  if (step.exchange()) {
    notify(to, step.to.last(), from, step.from.last(), *step.replaced);
  } else if (step.replaced != nullptr) {
    NotifyInode(*step.replaced->inode(), IN_ATTRIB);
    const Result<Attributes> left = step.replaced->inode()->GetAttributes();
    if (!left.ok() || left.value().nlink == 0 || step.replaced->is_directory()) {
      NotifyInode(*step.replaced->inode(), IN_DELETE_SELF);
    }
  }
}

}  // namespace

Result<void> Vfs::Rename(const Caller& caller, const Path& old_base, std::string_view old_path,
                         const Path& new_base, std::string_view new_path, uint32_t flags) {
  if ((flags & ~static_cast<uint32_t>(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) != 0)
    return Errno(EINVAL);
  if ((flags & RENAME_EXCHANGE) != 0 && (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)) != 0)
    return Errno(EINVAL);
  PathWalker from(*impl_, caller, 0);
  TRY(from.Start(old_base, old_path, false));
  TRY(from.AdvanceToLast());
  PathWalker to(*impl_, caller, 0);
  TRY(to.Start(new_base, new_path, false));
  TRY(to.AdvanceToLast());
  if (from.directory().mount != to.directory().mount) return Errno(EXDEV);
  if (from.last_kind() != PathWalker::LastKind::kNormal) return Errno(EBUSY);
  if (to.last_kind() != PathWalker::LastKind::kNormal)
    return Errno((flags & RENAME_NOREPLACE) != 0 ? EEXIST : EBUSY);
  if (from.directory().mount->read_only()) return Errno(EROFS);

  const DentryRef& from_dentry = from.directory().dentry;
  const DentryRef& to_dentry = to.directory().dentry;
  RenameStep step{from, to, nullptr, nullptr, flags};
  const DirectoryPairLock lock(impl_->rename_mu, from_dentry, to_dentry);
  step.moved = TRY(impl_->Lookup(from_dentry, from.last(), true));
  if (step.moved == nullptr) return Errno(ENOENT);
  step.replaced = TRY(impl_->Lookup(to_dentry, to.last(), true));
  TRY(CheckNames(step));
  // Two names of one file: nothing to do, says POSIX.
  if (step.replaced != nullptr && step.replaced->inode() == step.moved->inode()) return {};
  TRY(CheckRights(*impl_, caller, step));

  std::optional<absl::MutexLock> replaced_lock;  // Nothing may appear in a directory that goes.
  if (step.replaced != nullptr && step.replaced->is_directory() && !step.exchange()) {
    replaced_lock.emplace(&step.replaced->change_mutex());
  }
  TRY(from_dentry->inode()->Rename(
      from.last(), *step.moved->inode(), *to_dentry->inode(), to.last(),
      step.replaced == nullptr ? nullptr : step.replaced->inode().get(), flags));
  FileSystem& file_system = from_dentry->inode()->file_system();
  if (step.exchange()) {
    impl_->cache.Exchange(from_dentry, step.moved, to_dentry, step.replaced);
  } else {
    const bool leaves_negative = (flags & RENAME_WHITEOUT) == 0 && file_system.CachesDentries() &&
                                 file_system.CachesNegatives();
    impl_->cache.Move(from_dentry, step.moved, to_dentry, to.last(), leaves_negative);
  }
  if (!step.exchange() && step.replaced != nullptr && step.replaced->has_mounts())
    impl_->mounts->DetachFrom(*step.replaced);
  if (step.moved->is_directory()) impl_->tree_changes.fetch_add(1, std::memory_order_acq_rel);
  NotifyRename(step);
  return {};
}

}  // namespace sentry
