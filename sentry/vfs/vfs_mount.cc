// The mount table: one namespace for the sandbox.

#include <sys/mount.h>

#include <algorithm>
#include <utility>

#include "sentry/vfs/vfs_impl.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// A sandbox's fs.mount-max.
constexpr size_t kMountsMax = 100000;

MountRef NewMount(FileSystemRef file_system, DentryRef root, std::string source, uint64_t flags) {
  auto mount = std::make_shared<Mount>();
  mount->file_system = std::move(file_system);
  mount->root = std::move(root);
  mount->source = std::move(source);
  mount->flags.store(flags, std::memory_order_relaxed);
  return mount;
}

}  // namespace

DentryRef Vfs::Impl::RootDentry(FileSystem& file_system) {
  std::weak_ptr<Dentry>& place = roots[&file_system];
  DentryRef dentry = place.lock();
  if (dentry == nullptr || dentry->inode().get() != file_system.root().get()) {
    dentry = std::make_shared<Dentry>(nullptr, "/", file_system.root());
    place = dentry;
  }
  return dentry;
}

Result<void> Vfs::Impl::Attach(const MountRef& mount, Path at) {
  const absl::MutexLock lock(&at.dentry->change_mutex());
  if (at.dentry->is_deleted()) return Errno(ENOENT);
  const absl::MutexLock mount_lock(&mount_mu);
  if (mounts.size() >= kMountsMax) return Errno(ENOSPC);
  for (auto found = attached.find({at.mount.get(), at.dentry.get()}); found != attached.end();
       found = attached.find({at.mount.get(), at.dentry.get()})) {
    at = {found->second, found->second->root};
  }
  if (at.dentry->is_directory() != mount->root->is_directory()) return Errno(ENOTDIR);
  mount->id = next_mount_id++;
  mount->parent = at.mount;
  mount->mountpoint = at.dentry;
  mounts.push_back(mount);
  attached.insert_or_assign(MountPlace{at.mount.get(), at.dentry.get()}, mount);
  at.dentry->mounts_here_.fetch_add(1, std::memory_order_acq_rel);
  tree_changes.fetch_add(1, std::memory_order_acq_rel);
  return {};
}

Result<MountRef> Vfs::MountRoot(FileSystemRef file_system, std::string source, uint64_t flags) {
  const absl::MutexLock lock(&impl_->mount_mu);
  if (impl_->root.dentry != nullptr) return Errno(EBUSY);
  DentryRef dentry = impl_->RootDentry(*file_system);
  MountRef mount = NewMount(std::move(file_system), std::move(dentry), std::move(source), flags);
  mount->id = impl_->next_mount_id++;
  impl_->mounts.push_back(mount);
  impl_->root = {mount, mount->root};
  return mount;
}

Result<MountRef> Vfs::MountAt(const Path& at, FileSystemRef file_system, std::string source,
                              uint64_t flags, InodeRef subtree) {
  DentryRef dentry;
  if (subtree != nullptr && subtree != file_system->root()) {
    dentry = std::make_shared<Dentry>(nullptr, "/", std::move(subtree));
  } else {
    const absl::MutexLock lock(&impl_->mount_mu);
    dentry = impl_->RootDentry(*file_system);
  }
  MountRef mount = NewMount(std::move(file_system), std::move(dentry), std::move(source), flags);
  TRY(impl_->Attach(mount, at));
  return mount;
}

Result<MountRef> Vfs::Bind(const Path& source, const Path& at, bool recursive) {
  const uint64_t flags = source.mount->flags.load(std::memory_order_relaxed);
  if (source.mount->anonymous) return Errno(EINVAL);
  MountRef top = NewMount(source.mount->file_system, source.dentry, source.mount->source, flags);
  // What is mounted below the source, parents before children, before the new mount can show up
  // there itself.
  std::vector<MountRef> below;
  if (recursive) {
    const absl::ReaderMutexLock lock(&impl_->mount_mu);
    below = impl_->mounts;
  }
  TRY(impl_->Attach(top, at));
  absl::flat_hash_map<const Mount*, MountRef> copies{{source.mount.get(), top}};
  for (const MountRef& mount : below) {
    MountRef parent;
    DentryRef mountpoint;
    {
      const absl::ReaderMutexLock lock(&impl_->mount_mu);
      parent = mount->parent.lock();
      mountpoint = mount->mountpoint;
    }
    const auto copied = parent == nullptr ? copies.end() : copies.find(parent.get());
    if (copied == copies.end()) continue;
    bool inside = parent != source.mount;
    for (DentryRef up = mountpoint; !inside && up != nullptr; up = up->parent())
      inside = up == source.dentry;
    if (!inside) continue;
    MountRef copy = NewMount(mount->file_system, mount->root, mount->source, mount->flags.load());
    TRY(impl_->Attach(copy, {copied->second, mountpoint}));
    copies.emplace(mount.get(), copy);
  }
  return top;
}

void Vfs::Impl::DetachLocked(const MountRef& mount) {
  const MountRef parent = mount->parent.lock();
  if (parent != nullptr) {
    attached.erase({parent.get(), mount->mountpoint.get()});
    mount->mountpoint->mounts_here_.fetch_sub(1, std::memory_order_acq_rel);
  }
  std::erase(mounts, mount);
  mount->parent.reset();
  mount->mountpoint = nullptr;
}

Result<void> Vfs::Unmount(const Path& at, int flags) {
  std::vector<MountRef> gone;
  std::vector<DentryRef> prune;
  {
    const absl::MutexLock lock(&impl_->mount_mu);
    const MountRef& mount = at.mount;
    if (at.dentry != mount->root || mount->anonymous) return Errno(EINVAL);
    if (std::find(impl_->mounts.begin(), impl_->mounts.end(), mount) == impl_->mounts.end())
      return Errno(EINVAL);
    if (mount == impl_->root.mount) return Errno(EBUSY);
    gone.push_back(mount);
    for (size_t next = 0; next < gone.size(); ++next) {
      for (const MountRef& each : impl_->mounts) {
        if (each->parent.lock() == gone[next]) gone.push_back(each);
      }
    }
    if ((flags & MNT_DETACH) == 0) {
      // The table, `attached`, `gone` and the caller's path; anything else uses it.
      if (gone.size() > 1 || mount.use_count() > 4) return Errno(EBUSY);
    }
    for (auto each = gone.rbegin(); each != gone.rend(); ++each) impl_->DetachLocked(*each);
    impl_->tree_changes.fetch_add(1, std::memory_order_acq_rel);
    for (const MountRef& each : gone) {
      const bool still_mounted = std::any_of(
          impl_->mounts.begin(), impl_->mounts.end(),
          [&](const MountRef& other) { return other->file_system == each->file_system; });
      if (still_mounted) continue;
      prune.push_back(each->root);
      impl_->roots.erase(each->file_system.get());
    }
  }
  for (const DentryRef& root : prune) impl_->cache.PruneTree(root);
  return {};
}

Path Vfs::MountpointOf(const Mount& mount) const {
  const absl::ReaderMutexLock lock(&impl_->mount_mu);
  MountRef parent = mount.parent.lock();
  if (parent == nullptr) return {};
  return {std::move(parent), mount.mountpoint};
}

std::vector<MountRef> Vfs::Mounts() const {
  const absl::ReaderMutexLock lock(&impl_->mount_mu);
  return impl_->mounts;
}

void Vfs::RegisterFileSystem(std::string type, FileSystemFactory factory) {
  impl_->factories.insert_or_assign(std::move(type), std::move(factory));
}

Result<FileSystemRef> Vfs::MakeFileSystem(Task& task, std::string_view type,
                                          std::string_view options) {
  const auto found = impl_->factories.find(type);
  if (found == impl_->factories.end()) return Errno(ENODEV);
  return found->second(task, options);
}

std::vector<std::string> Vfs::FileSystemTypes() const {
  std::vector<std::string> types;
  for (const auto& [type, factory] : impl_->factories) types.push_back(type);
  return types;
}

Path Vfs::AnonymousPath(FileSystemRef file_system, InodeRef inode, std::string name) {
  DentryRef dentry = std::make_shared<Dentry>(nullptr, std::move(name), std::move(inode));
  MountRef mount = NewMount(std::move(file_system), dentry, "none", 0);
  mount->anonymous = true;
  return {std::move(mount), std::move(dentry)};
}

}  // namespace sentry
