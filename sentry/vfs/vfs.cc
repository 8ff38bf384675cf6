// Walks, names and the pieces that every operation is made of. Operations are in vfs_namespace.cc,
// vfs_rename.cc, vfs_open.cc and vfs_attributes.cc; mounts in vfs_mount.cc.

#include "sentry/vfs/vfs.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "sentry/vfs/path_walk.h"
#include "sentry/vfs/quick_walk.h"
#include "sentry/vfs/vfs_impl.h"

namespace sentry {

using base::Errno;
using base::Result;

Vfs::Vfs() : impl_(std::make_unique<Impl>()) {}

Vfs::~Vfs() { impl_->mounts->Shutdown(); }

Result<DentryRef> Vfs::Impl::Lookup(const DentryRef& directory, std::string_view name,
                                    bool locked) {
  if (name.size() > kNameBytesMax) return Errno(ENAMETOOLONG);
  Inode& inode = *directory->inode();
  FileSystem& file_system = inode.file_system();
  const bool caches = file_system.CachesDentries();
  const auto usable = [&](const DentryRef& entry) {
    if (entry == nullptr) return false;
    if (caches || entry->has_mounts()) return true;
    return !entry->is_negative() && file_system.Revalidate(inode, name, *entry->inode());
  };
  const auto answer = [](DentryRef entry) {
    return entry->is_negative() ? DentryRef() : std::move(entry);
  };
  DentryRef cached = DentryCache::Find(*directory, name);
  if (usable(cached)) return answer(std::move(cached));

  std::optional<absl::ReaderMutexLock> lock;
  if (!locked) lock.emplace(&directory->change_mutex());
  if (directory->is_deleted()) return Errno(ENOENT);
  cached = DentryCache::Find(*directory, name);
  if (caches && cached != nullptr) return answer(std::move(cached));
  Result<InodeRef> found = inode.Lookup(name);
  if (!found.ok()) {
    if (found.error() != ENOENT) return found.error();
    if (cached != nullptr) {
      cache.Remove(directory, *cached, false);
    } else if (caches && file_system.CachesNegatives()) {
      cache.Insert(directory, name, nullptr);
    }
    return DentryRef();
  }
  if (cached != nullptr) return cache.Replace(directory, name, std::move(found).value());
  return answer(cache.Insert(directory, name, std::move(found).value()));
}

Caller Vfs::KernelCaller() const {
  const Path top = root();
  return Caller(top, top, RootCredentials(), 0);
}

Result<Path> Vfs::Impl::WalkQuickly(const Caller& caller, const Path& base, std::string_view path,
                                    const WalkOptions& options) {
  if (options.resolve != 0) return Path{};
  const ReadSections::Section section(cache.sections());
  QuickWalk walk(*this, caller, base.dentry == nullptr ? caller.working_directory() : base);
  const QuickWalk::Outcome outcome = walk.Run(path, options);
  if (outcome == QuickWalk::Outcome::kMissing) return Errno(ENOENT);
  if (outcome != QuickWalk::Outcome::kFound) return Path{};
  return walk.Referenced();
}

Result<Path> Vfs::Walk(const Caller& caller, const Path& base, std::string_view path,
                       const WalkOptions& options) {
  Path found = TRY(impl_->WalkQuickly(caller, base, path, options));
  if (found.dentry != nullptr) return found;
  PathWalker walker(*impl_, caller, options.resolve);
  walker.set_will_open(options.will_open);
  TRY(walker.Start(base, path, options.empty_path));
  return walker.Finish(options.follow_last, options.directory_only);
}

Result<Vfs::Looked> Vfs::Look(const Caller& caller, const Path& base, std::string_view path,
                              const WalkOptions& options) {
  if (options.resolve == 0) {
    const ReadSections::Section section(impl_->cache.sections());
    QuickWalk walk(*impl_, caller, base.dentry == nullptr ? caller.working_directory() : base);
    const QuickWalk::Outcome outcome = walk.Run(path, options);
    if (outcome == QuickWalk::Outcome::kMissing) return Errno(ENOENT);
    if (outcome == QuickWalk::Outcome::kFound) {
      return Looked{TRY(walk.dentry().inode()->GetAttributes()), walk.mount().id,
                    walk.mount().unique_id, walk.is_mount_root()};
    }
  }
  const Path found = TRY(Walk(caller, base, path, options));
  return Looked{TRY(found.dentry->inode()->GetAttributes()), found.mount->id,
                found.mount->unique_id, found.dentry == found.mount->root};
}

Result<LastStep> Vfs::WalkToParent(const Caller& caller, const Path& base, std::string_view path,
                                   const WalkOptions& options) {
  PathWalker walker(*impl_, caller, options.resolve);
  TRY(walker.Start(base, path, false));
  TRY(walker.AdvanceToLast());
  LastStep step;
  step.trailing_slash = walker.must_be_directory();
  if (walker.last_kind() != PathWalker::LastKind::kNormal) {
    step.special = true;
    step.directory = walker.directory();
    TRY(walker.TakeSpecialLast());
    step.child = walker.directory();
    return step;
  }
  step.directory = walker.directory();
  step.name = std::string(walker.last());
  step.child = TRY(walker.Child(walker.last()));
  return step;
}

Result<Path> Vfs::WalkAsKernel(std::string_view path) {
  return Walk(KernelCaller(), {}, path, WalkOptions{});
}

std::string Vfs::NameOf(const Path& path, const Path& root) const {
  if (path.dentry == nullptr) return {};
  if (path.mount->anonymous) return path.dentry->name();
  std::vector<std::string> parts;
  Path at = path;
  bool unreachable = false;
  while (!(at == root)) {
    if (at.dentry == at.mount->root) {
      Path mountpoint = impl_->mounts->MountpointOf(*at.mount);
      if (mountpoint.dentry == nullptr) {
        unreachable = root.dentry != nullptr;
        break;
      }
      at = std::move(mountpoint);
      continue;
    }
    DentryRef parent = at.dentry->parent();
    if (parent == nullptr) {
      unreachable = true;
      break;
    }
    parts.push_back(at.dentry->name());
    at.dentry = std::move(parent);
  }
  std::string text = unreachable ? "(unreachable)" : "";
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    text += '/';
    text += *part;
  }
  if (parts.empty()) text += '/';
  if (path.dentry->is_deleted()) text += " (deleted)";
  return text;
}

void Vfs::SetCharacterDeviceOpener(DeviceOpener opener) {
  impl_->device_opener = std::move(opener);
}
void Vfs::SetFifoOpener(FifoOpener opener) { impl_->fifo_opener = std::move(opener); }
LockWaits& Vfs::lock_waits() { return impl_->lock_waits; }
size_t Vfs::cached_dentries() const { return impl_->cache.size(); }

Result<void> MayCreate(const Caller& caller, Dentry& directory) {
  if (directory.is_deleted()) return Errno(ENOENT);
  return directory.inode()->CheckPermission(caller.credentials(), W_OK | X_OK);
}

Result<void> MayDelete(const Caller& caller, Dentry& directory, Dentry& victim,
                       bool victim_is_directory) {
  const Credentials& credentials = caller.credentials();
  TRY(directory.inode()->CheckPermission(credentials, W_OK | X_OK));
  if (!credentials.HasCapability(CAP_FOWNER)) {
    const Attributes attributes = TRY(directory.inode()->GetAttributes());
    if ((attributes.mode & S_ISVTX) != 0 && attributes.uid != credentials.fsuid) {
      const Attributes theirs = TRY(victim.inode()->GetAttributes());
      if (theirs.uid != credentials.fsuid &&
          !credentials.HasCapabilityOver(theirs.uid, theirs.gid, CAP_FOWNER))
        return Errno(EPERM);
    }
  }
  if (victim_is_directory) {
    if (!victim.is_directory()) return Errno(ENOTDIR);
    if (victim.parent() == nullptr) return Errno(EBUSY);
  } else if (victim.is_directory()) {
    return Errno(EISDIR);
  }
  if (directory.is_deleted()) return Errno(ENOENT);
  return {};
}

Result<CreateContext> NewOwner(const Caller& caller, Inode& directory, uint32_t type,
                               uint32_t mode) {
  const Credentials& credentials = caller.credentials();
  CreateContext context{.mode = mode & 07777U, .uid = credentials.fsuid, .gid = credentials.fsgid};
  const Attributes parent = TRY(directory.GetAttributes());
  if ((parent.mode & S_ISGID) == 0) return context;
  context.gid = parent.gid;
  if (type == S_IFDIR) {
    context.mode |= S_ISGID;
  } else if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
             !credentials.InGroup(parent.gid) &&
             !credentials.HasCapabilityOver(parent.uid, parent.gid, CAP_FSETID)) {
    context.mode &= ~static_cast<uint32_t>(S_ISGID);
  }
  return context;
}

bool AccessTimeIsStale(const Path& path, uint32_t file_flags, const Attributes& attributes,
                       Timestamp now) {
  constexpr int64_t kDaySeconds = 24 * 60 * 60;
  if ((file_flags & O_NOATIME) != 0 || path.mount == nullptr) return false;
  const uint64_t flags = path.mount->flags.load(std::memory_order_relaxed);
  if ((flags & (MS_NOATIME | MS_RDONLY)) != 0 || path.mount->file_system->read_only()) return false;
  if ((flags & MS_NODIRATIME) != 0 && attributes.IsDirectory()) return false;
  if ((flags & MS_STRICTATIME) != 0) return attributes.atime != now;
  return attributes.atime <= attributes.mtime || attributes.atime <= attributes.ctime ||
         now.seconds - attributes.atime.seconds >= kDaySeconds;
}

}  // namespace sentry
