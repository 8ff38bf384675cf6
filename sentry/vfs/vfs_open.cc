// open(2): from a name to an open file description.

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <unistd.h>

#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/vfs/inode_attachments.h"
#include "sentry/vfs/path_walk.h"
#include "sentry/vfs/vfs_impl.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// O_PATH: a place and nothing else.
class PathFile final : public File {
 public:
  using File::File;
};

int AccessMask(uint32_t flags) {
  constexpr int kMasks[] = {R_OK, W_OK, R_OK | W_OK, R_OK | W_OK};
  return kMasks[flags & O_ACCMODE] | ((flags & O_TRUNC) != 0 ? W_OK : 0);
}

// may_open and do_open's checks of an existing object.
Result<void> MayOpen(const Caller& caller, const Path& path, uint32_t flags) {
  Inode& inode = *path.dentry->inode();
  const int mask = AccessMask(flags);
  const bool writes = (mask & W_OK) != 0;
  switch (inode.type()) {
    case S_IFLNK:
      return Errno(ELOOP);
    case S_IFDIR:
      if (writes) return Errno(EISDIR);
      break;
    case S_IFBLK:
    case S_IFCHR:
      if (path.mount->has_flag(MS_NODEV)) return Errno(EACCES);
      // What a user namespace mounts holds no devices but the file system's own.
      if (path.mount->file_system->owner() != nullptr && !inode.HandlesOwnOpen())
        return Errno(EACCES);
      break;
    case S_IFREG:
      if (writes && path.mount->file_system->read_only()) return Errno(EROFS);
      break;
    default:
      break;
  }
  TRY(inode.CheckPermission(caller.credentials(), mask));
  if ((flags & O_NOATIME) != 0 && !caller.credentials().HasCapability(CAP_FOWNER)) {
    const Attributes theirs = TRY(inode.GetAttributes());
    if (theirs.uid != caller.credentials().fsuid &&
        !caller.credentials().HasCapabilityOver(theirs.uid, theirs.gid, CAP_FOWNER))
      return Errno(EPERM);
  }
  if (writes && inode.type() == S_IFREG && path.mount->read_only()) return Errno(EROFS);
  return {};
}

// Makes the regular file, unless someone else was faster: then it is just found.
Result<DentryRef> CreateRegular(Vfs::Impl& vfs, const Caller& caller, const Path& directory,
                                std::string_view name, uint32_t mode, bool* created) {
  const absl::MutexLock lock(&directory.dentry->change_mutex());
  DentryRef existing = TRY(vfs.Lookup(directory.dentry, name, true));
  if (existing != nullptr) return existing;
  if (directory.mount->read_only()) return Errno(EROFS);
  TRY(MayCreate(caller, *directory.dentry));
  Inode& parent = *directory.dentry->inode();
  const CreateContext owner =
      TRY(NewOwner(caller, parent, S_IFREG, mode & 07777U & ~caller.umask()));
  InodeRef made = TRY(parent.Create(name, owner));
  *created = true;
  DentryRef entry = vfs.cache.Replace(directory.dentry, name, std::move(made));
  NotifyInode(parent, IN_CREATE, name);
  return entry;
}

Result<FileRef> OpenByType(Vfs::Impl& vfs, Task& task, const Path& path, uint32_t flags) {
  Inode& inode = *path.dentry->inode();
  const uint32_t type = inode.type();
  if (!inode.HandlesOwnOpen()) {
    if (type == S_IFSOCK) return Errno(ENXIO);
    if (type == S_IFIFO) {
      if (vfs.fifo_opener == nullptr) return Errno(ENXIO);
      return vfs.fifo_opener(task, path, flags);
    }
    if (type == S_IFCHR || type == S_IFBLK) {
      if (vfs.device_opener == nullptr) return Errno(ENXIO);
      return vfs.device_opener(task, path, TRY(inode.GetAttributes()).rdev, flags);
    }
  }
  return inode.Open(task, path, flags);
}

Result<FileRef> OpenFound(Vfs::Impl& vfs, Task& task, const Caller& caller, const Path& path,
                          uint32_t flags, bool created) {
  Inode& inode = *path.dentry->inode();
  if ((flags & O_DIRECTORY) != 0 && inode.type() != S_IFDIR) return Errno(ENOTDIR);
  if ((flags & O_PATH) != 0) {
    return FileRef(std::make_shared<PathFile>(path, flags & ~static_cast<uint32_t>(O_CLOEXEC),
                                              task.own_credentials_ref()));
  }
  const uint32_t type = inode.type();
  if (type == S_IFIFO || type == S_IFSOCK || created) flags &= ~static_cast<uint32_t>(O_TRUNC);
  if (!created) TRY(MayOpen(caller, path, flags));
  if (type == S_IFREG && !created) TRY(AwaitLeases(task, inode, flags));
  const bool truncates = (flags & O_TRUNC) != 0 && type == S_IFREG;
  const uint32_t kept =
      flags & ~static_cast<uint32_t>(O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_TRUNC);
  if (truncates) {
    // Before it is opened, so that an overlay need not copy what is thrown away.
    Inode::Attachments& attachments = inode.attachments();
    TRY(attachments.GetWriteAccess());
    AttributeChanges changes;
    changes.size = 0;
    const Attributes old = TRY(inode.GetAttributes());
    if ((old.mode & (S_ISUID | S_ISGID)) != 0 &&
        !caller.credentials().HasCapabilityOver(old.uid, old.gid, CAP_FSETID)) {
      changes.mode = ModeWithoutPrivileges(old, caller.credentials());
    }
    const Result<void> result = inode.SetAttributes(changes);
    attachments.PutWriteAccess();
    TRY(result);
    NotifyPath(path, IN_MODIFY);
  }
  FileRef file = TRY(OpenByType(vfs, task, path, kept));
  if (type == S_IFREG && file->path().dentry == path.dentry) {
    if (file->writable()) {
      TRY(file->TakeWriteAccess());
    } else {
      file->CountAsReader();
    }
    if (created) file->set_has_created();
  }
  NotifyPath(path, IN_OPEN);
  return file;
}

}  // namespace

Result<FileRef> Vfs::OpenPath(Task& task, const Path& path, uint32_t flags) {
  return OpenFound(*impl_, task, Caller(task), path, flags, false);
}

Result<FileRef> Vfs::OpenUnnamed(Task& task, const Caller& caller, const Path& base,
                                 std::string_view path, const OpenRequest& request) {
  PathWalker walker(*impl_, caller, request.resolve);
  TRY(walker.Start(base, path, false));
  const Path directory = TRY(walker.Finish((request.flags & O_NOFOLLOW) == 0, true));
  if (directory.mount->read_only()) return Errno(EROFS);
  TRY(MayCreate(caller, *directory.dentry));
  Inode& parent = *directory.dentry->inode();
  const CreateContext owner =
      TRY(NewOwner(caller, parent, S_IFREG, request.mode & 07777U & ~caller.umask()));
  InodeRef inode = TRY(parent.CreateUnnamed(owner));
  if ((request.flags & O_EXCL) != 0)
    inode->attachments().never_linked.store(true, std::memory_order_relaxed);
  const std::string name = "#" + std::to_string(TRY(inode->GetAttributes()).inode);
  DentryRef entry = std::make_shared<Dentry>(directory.dentry, name, std::move(inode));
  entry->deleted_.store(true, std::memory_order_release);
  const uint32_t flags = request.flags & ~static_cast<uint32_t>(O_DIRECTORY);
  return OpenFound(*impl_, task, caller, {directory.mount, std::move(entry)}, flags, true);
}

Result<FileRef> Vfs::Open(Task& task, const Path& base, std::string_view path,
                          const OpenRequest& request) {
  const Caller caller(task);
  uint32_t flags = request.flags;
  if ((flags & O_PATH) != 0) flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  if ((flags & O_TMPFILE) == O_TMPFILE) return OpenUnnamed(task, caller, base, path, request);
  if ((flags & O_CREAT) == 0) {
    WalkOptions options;
    options.follow_last = (flags & O_NOFOLLOW) == 0;
    options.resolve = request.resolve;
    options.will_open = (flags & (O_ACCMODE | O_PATH | O_DIRECTORY | O_TRUNC)) == O_RDONLY;
    const Path found = TRY(Walk(caller, base, path, options));
    return OpenFound(*impl_, task, caller, found, flags, false);
  }
  PathWalker walker(*impl_, caller, request.resolve);
  TRY(walker.Start(base, path, false));

  const bool exclusive = (flags & O_EXCL) != 0;
  bool created = false;
  Path found;
  TRY(walker.AdvanceToLast());
  while (true) {
    if (walker.last_kind() != PathWalker::LastKind::kNormal)
      return Errno(exclusive ? EEXIST : EISDIR);
    if (walker.must_be_directory()) return Errno(EISDIR);
    found = TRY(walker.Child(walker.last()));
    if (found.dentry == nullptr) {
      found = TRY(walker.ChildOf(TRY(CreateRegular(*impl_, caller, walker.directory(),
                                                   walker.last(), request.mode, &created))));
    }
    if (created || exclusive || !found.dentry->is_symlink() || (flags & O_NOFOLLOW) != 0) break;
    if (TRY(walker.FollowLink(found))) {
      found = walker.directory();
      break;
    }
    TRY(walker.AdvanceToLast());
  }
  if (exclusive && !created) return Errno(EEXIST);
  if (found.dentry->is_directory()) return Errno(EISDIR);
  return OpenFound(*impl_, task, caller, found, flags, created);
}

}  // namespace sentry
