// Calls that make and remove one name.

#include <linux/capability.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <utility>

#include "sentry/vfs/inode_attachments.h"
#include "sentry/vfs/path_walk.h"
#include "sentry/vfs/vfs_impl.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

bool LeavesNegative(const Dentry& directory) {
  FileSystem& file_system = directory.inode()->file_system();
  return file_system.CachesDentries() && file_system.CachesNegatives();
}

// The last component of `path` shall become something new: checks in the order of filename_create
// and may_create, then `make(directory, name, owner)`.
template <typename Make>
Result<Path> CreateAt(Vfs::Impl& vfs, const Caller& caller, const Path& base, std::string_view path,
                      uint32_t type, uint32_t mode, Make&& make) {
  PathWalker walker(vfs, caller, 0);
  TRY(walker.Start(base, path, false));
  TRY(walker.AdvanceToLast());
  if (walker.last_kind() != PathWalker::LastKind::kNormal) return Errno(EEXIST);
  const Path& directory = walker.directory();
  const absl::MutexLock lock(&directory.dentry->change_mutex());
  if (TRY(vfs.Lookup(directory.dentry, walker.last(), true)) != nullptr) return Errno(EEXIST);
  if (walker.must_be_directory() && type != S_IFDIR) return Errno(ENOENT);
  if (directory.mount->read_only()) return Errno(EROFS);
  TRY(MayCreate(caller, *directory.dentry));
  Inode& parent = *directory.dentry->inode();
  const CreateContext owner = TRY(NewOwner(caller, parent, type, mode & ~caller.umask()));
  InodeRef made = TRY(make(parent, walker.last(), owner));
  DentryRef entry = vfs.cache.Replace(directory.dentry, walker.last(), std::move(made));
  NotifyInode(parent, type == S_IFDIR ? IN_CREATE | IN_ISDIR : IN_CREATE, walker.last());
  return Path{directory.mount, std::move(entry)};
}

}  // namespace

Result<void> Vfs::MakeDirectory(const Caller& caller, const Path& base, std::string_view path,
                                uint32_t mode) {
  TRY(CreateAt(*impl_, caller, base, path, S_IFDIR, mode & 01777U,
               [](Inode& parent, std::string_view name, const CreateContext& owner) {
                 return parent.MakeDirectory(name, owner);
               }));
  return {};
}

Result<void> Vfs::MakeNode(const Caller& caller, const Path& base, std::string_view path,
                           uint32_t mode, uint64_t rdev) {
  const uint32_t type = (mode & S_IFMT) == 0 ? S_IFREG : mode & S_IFMT;
  if (type == S_IFDIR) return Errno(EPERM);
  const bool is_device = type == S_IFCHR || type == S_IFBLK;
  if (type != S_IFREG && !is_device && type != S_IFIFO && type != S_IFSOCK) return Errno(EINVAL);
  const auto make = [&](Inode& parent, std::string_view name,
                        const CreateContext& owner) -> Result<InodeRef> {
    if (type == S_IFREG) return parent.Create(name, owner);
    if (is_device && !caller.credentials().HasCapability(CAP_MKNOD)) return Errno(EPERM);
    return parent.MakeNode(name, owner, type, is_device ? rdev : 0);
  };
  TRY(CreateAt(*impl_, caller, base, path, type, mode & 07777U, make));
  return {};
}

Result<Path> Vfs::MakeSocketNode(const Caller& caller, const Path& base, std::string_view path,
                                 uint32_t mode) {
  return CreateAt(*impl_, caller, base, path, S_IFSOCK, mode & 07777U,
                  [](Inode& parent, std::string_view name, const CreateContext& owner) {
                    return parent.MakeNode(name, owner, S_IFSOCK, 0);
                  });
}

Result<void> Vfs::MakeSymlink(const Caller& caller, std::string_view target, const Path& base,
                              std::string_view path) {
  if (target.empty()) return Errno(ENOENT);
  if (target.size() >= kPathBytesMax) return Errno(ENAMETOOLONG);
  const auto make = [&](Inode& parent, std::string_view name, const CreateContext& owner) {
    CreateContext link_owner = owner;
    link_owner.mode = 0777;
    return parent.MakeSymlink(name, target, link_owner);
  };
  TRY(CreateAt(*impl_, caller, base, path, S_IFLNK, 0777, make));
  return {};
}

Result<void> Vfs::Link(const Caller& caller, const Path& target, const Path& base,
                       std::string_view path) {
  const InodeRef inode = target.dentry->inode();
  PathWalker walker(*impl_, caller, 0);
  TRY(walker.Start(base, path, false));
  TRY(walker.AdvanceToLast());
  if (walker.last_kind() != PathWalker::LastKind::kNormal) return Errno(EEXIST);
  const Path& directory = walker.directory();
  const absl::MutexLock lock(&directory.dentry->change_mutex());
  if (TRY(impl_->Lookup(directory.dentry, walker.last(), true)) != nullptr) return Errno(EEXIST);
  if (walker.must_be_directory()) return Errno(ENOENT);
  if (directory.mount->read_only()) return Errno(EROFS);
  if (directory.mount != target.mount) return Errno(EXDEV);
  TRY(MayCreate(caller, *directory.dentry));
  Inode& parent = *directory.dentry->inode();
  if (&parent.file_system() != &inode->file_system()) return Errno(EXDEV);
  if (inode->type() == S_IFDIR) return Errno(EPERM);
  const Inode::Attachments* attachments = inode->attachments_if_any();
  if (attachments != nullptr && attachments->never_linked.load(std::memory_order_relaxed))
    return Errno(ENOENT);
  TRY(parent.Link(walker.last(), *inode));
  impl_->cache.Replace(directory.dentry, walker.last(), inode);
  NotifyInode(*inode, IN_ATTRIB);
  NotifyInode(parent, IN_CREATE, walker.last());
  return {};
}

Result<void> Vfs::Unlink(const Caller& caller, const Path& base, std::string_view path) {
  PathWalker walker(*impl_, caller, 0);
  TRY(walker.Start(base, path, false));
  TRY(walker.AdvanceToLast());
  if (walker.last_kind() != PathWalker::LastKind::kNormal) return Errno(EISDIR);
  const Path& directory = walker.directory();
  if (directory.mount->read_only()) return Errno(EROFS);
  DentryRef victim;  // Outlives the lock: the last reference to a file may go with it.
  const absl::MutexLock lock(&directory.dentry->change_mutex());
  victim = TRY(impl_->Lookup(directory.dentry, walker.last(), true));
  if (victim == nullptr) return Errno(ENOENT);
  if (walker.must_be_directory()) return Errno(victim->is_directory() ? EISDIR : ENOTDIR);
  TRY(MayDelete(caller, *directory.dentry, *victim, false));
  if (impl_->IsMountpoint(caller, *victim)) return Errno(EBUSY);
  Inode& parent = *directory.dentry->inode();
  Inode& inode = *victim->inode();
  TRY(parent.Unlink(walker.last(), inode));
  impl_->cache.Remove(directory.dentry, *victim, LeavesNegative(*directory.dentry));
  if (victim->has_mounts()) impl_->mounts->DetachFrom(*victim);
  if (inode.file_system().watch_count().load(std::memory_order_relaxed) != 0) {
    NotifyInode(inode, IN_ATTRIB);
    NotifyInode(parent, IN_DELETE, walker.last());
    const Result<Attributes> left = inode.GetAttributes();
    if (!left.ok() || left.value().nlink == 0) NotifyInode(inode, IN_DELETE_SELF);
  }
  return {};
}

Result<void> Vfs::RemoveDirectory(const Caller& caller, const Path& base, std::string_view path) {
  PathWalker walker(*impl_, caller, 0);
  TRY(walker.Start(base, path, false));
  TRY(walker.AdvanceToLast());
  switch (walker.last_kind()) {
    case PathWalker::LastKind::kNormal:
      break;
    case PathWalker::LastKind::kDot:
      return Errno(EINVAL);
    case PathWalker::LastKind::kDotDot:
      return Errno(ENOTEMPTY);
    case PathWalker::LastKind::kNone:
      return Errno(EBUSY);
  }
  const Path& directory = walker.directory();
  if (directory.mount->read_only()) return Errno(EROFS);
  DentryRef victim;
  const absl::MutexLock lock(&directory.dentry->change_mutex());
  victim = TRY(impl_->Lookup(directory.dentry, walker.last(), true));
  if (victim == nullptr) return Errno(ENOENT);
  TRY(MayDelete(caller, *directory.dentry, *victim, true));
  if (impl_->IsMountpoint(caller, *victim)) return Errno(EBUSY);
  Inode& parent = *directory.dentry->inode();
  {
    // Nothing may appear in it between the look inside and its end.
    const absl::MutexLock victim_lock(&victim->change_mutex());
    TRY(parent.RemoveDirectory(walker.last(), *victim->inode()));
    impl_->cache.Remove(directory.dentry, *victim, LeavesNegative(*directory.dentry));
  }
  if (victim->has_mounts()) impl_->mounts->DetachFrom(*victim);
  NotifyInode(parent, IN_DELETE | IN_ISDIR, walker.last());
  NotifyInode(*victim->inode(), IN_DELETE_SELF);
  return {};
}

}  // namespace sentry
