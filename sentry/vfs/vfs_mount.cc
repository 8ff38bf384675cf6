// Mounts as set-up code sees them, and the places of files that have none.

#include <utility>

#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/vfs_impl.h"

namespace sentry {

using base::Errno;
using base::Result;

Mounts& Vfs::mounts() { return *impl_->mounts; }

Path Vfs::root() const { return impl_->mounts->initial_root(); }

FileSystemTypes& Vfs::file_system_types() { return impl_->types; }

Result<MountRef> Vfs::MountRoot(FileSystemRef file_system, std::string source, uint64_t flags) {
  return impl_->mounts->MountRoot(std::move(file_system), std::move(source), MountFlagsOf(flags));
}

Result<MountRef> Vfs::MountAt(const Path& at, FileSystemRef file_system, std::string source,
                              uint64_t flags, InodeRef subtree) {
  Mounts& mounts = *impl_->mounts;
  MountRef mount = mounts.NewMount(std::move(file_system), std::move(source), MountFlagsOf(flags),
                                   std::move(subtree));
  TRY(mounts.Attach(*mounts.initial(), mount, at));
  return mount;
}

bool Vfs::Impl::IsMountpoint(const Caller& caller, const Dentry& dentry) const {
  if (!dentry.has_mounts()) return false;
  if (caller.task() == nullptr) return mounts->IsMountpoint(dentry, *mounts->initial());
  return mounts->IsMountpoint(dentry, *caller.task()->own_namespaces().mount);
}

Path Vfs::AnonymousPath(FileSystemRef file_system, InodeRef inode, std::string name) {
  auto mount = std::make_shared<Mount>();
  mount->file_system = std::move(file_system);
  mount->root = std::make_shared<Dentry>(nullptr, std::move(name), std::move(inode));
  mount->source = "none";
  mount->anonymous = true;
  DentryRef root = mount->root;
  return {std::move(mount), std::move(root)};
}

}  // namespace sentry
