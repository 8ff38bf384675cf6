// Changes of the trees of mounts: attach, bind, move, unmount, pivot_root, copies.

#include <algorithm>
#include <utility>

#include "sentry/vfs/dentry_cache.h"
#include "sentry/vfs/fs_context.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/mount_propagation.h"
#include "sentry/vfs/mounts.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

bool IsRootOfMount(const Path& path) { return path.dentry == path.mount->root; }

// The mount namespace that the file `dentry` stands for; null for all other files.
const MountNamespace* NamedMountNamespace(const Dentry& dentry) {
  if (dentry.inode() == nullptr || dentry.inode()->file_system().type_name() != "nsfs")
    return nullptr;
  const auto* file = dynamic_cast<const NamespaceFile*>(dentry.inode().get());
  return file == nullptr ? nullptr
                         : dynamic_cast<const MountNamespace*>(file->shown_namespace().get());
}

// A namespace that is as old as `space` or older is not bound in it: it could keep itself alive.
bool WouldLoop(const Dentry& dentry, const MountNamespace& space) {
  const MountNamespace* named = NamedMountNamespace(dentry);
  return named != nullptr && named->sequence() <= space.sequence();
}

bool MayChangeFlags(const Mount& mount, uint64_t wanted) {
  const uint64_t now = mount.flags.load(std::memory_order_relaxed);
  const auto stays = [&](uint64_t lock, uint64_t flag) {
    return (now & lock) == 0 || (wanted & flag) != 0;
  };
  return stays(kMountLockReadOnly, MS_RDONLY) && stays(kMountLockNoDev, MS_NODEV) &&
         stays(kMountLockNoSuid, MS_NOSUID) && stays(kMountLockNoExec, MS_NOEXEC) &&
         ((now & kMountLockAtime) == 0 || ((now ^ wanted) & kMountAtimeMask) == 0);
}

void StoreFlags(Mount& mount, uint64_t wanted) {
  const uint64_t kept = mount.flags.load(std::memory_order_relaxed) & ~kMountSettable;
  mount.flags.store(kept | (wanted & kMountSettable), std::memory_order_relaxed);
}

}  // namespace

Result<void> Mounts::CheckRoomLocked(const MountNamespace& space, size_t more) const {
  const uint64_t limit = mounts_max_.load(std::memory_order_relaxed);
  if (space.mounts_.size() + more > limit || count_ > kMountsInAllMax) return Errno(ENOSPC);
  return {};
}

MountRef Mounts::CopyMountLocked(Mount& from, DentryRef root, const CopyFlags& how) {
  MountRef copy = MakeLocked(from.file_system, std::move(root), from.source,
                             from.flags.load(std::memory_order_relaxed));
  const bool slave = how.slave || (how.shared_to_slave && from.group_ != nullptr);
  if (slave) {
    copy->master_ = from.group_;
  } else if (!how.private_copy) {
    copy->group_ = from.group_;
    copy->master_ = from.master_;
    copy->unbindable_ = from.unbindable_;
  }
  if (copy->group_ != nullptr) copy->group_->members.push_back(copy.get());
  if (copy->master_ != nullptr) copy->master_->slaves.push_back(copy.get());
  if (how.make_shared) SetPropagationLocked(*copy, Propagation::kShared);
  return copy;
}

Result<Mounts::Tree> Mounts::CopyTreeLocked(Mount& from, const DentryRef& root,
                                            const CopyFlags& how, bool recursive,
                                            Dropped* dropped) {
  if (!how.unbindable_too && from.unbindable_) return Errno(EINVAL);
  Tree tree{CopyMountLocked(from, root, how)};
  if (!recursive) return tree;
  // Originals beside their copies, parents first.
  std::vector<std::pair<Mount*, Mount*>> pending{{&from, tree.front().get()}};
  Errno error(0);
  for (size_t next = 0; next < pending.size() && error.value() == 0; ++next) {
    const auto [original, copy] = pending[next];
    for (Mount* child : original->children_) {
      if (original == &from && !IsAtOrBelow(*child->mountpoint_, *root)) continue;
      if (!how.unbindable_too && child->unbindable_) {
        // What it covers must not come to light.
        if (child->has_flag(kMountLocked)) error = Errno(EPERM);
        continue;
      }
      if (!how.namespace_files_too && NamedMountNamespace(*child->root) != nullptr) continue;
      if (count_ >= kMountsInAllMax) error = Errno(ENOSPC);
      if (error.value() != 0) break;
      tree.push_back(CopyMountLocked(*child, child->root, how));
      LinkLocked(*tree.back(), *copy, child->mountpoint_);
      pending.emplace_back(child, tree.back().get());
    }
  }
  if (error.value() == 0) return tree;
  DiscardLocked(tree, dropped);
  return error;
}

void Mounts::DiscardLocked(const Tree& tree, Dropped* dropped) {
  for (const MountRef& mount : tree) {
    UnlinkLocked(*mount, dropped);
    SetPropagationLocked(*mount, Propagation::kPrivate);
    dropped->push_back(mount);
  }
}

Mounts::Tree Mounts::TreeOfLocked(Mount& top) const {
  Tree tree{top.shared_from_this()};
  for (size_t next = 0; next < tree.size(); ++next) {
    const std::vector<Mount*>& children = tree[next]->children_;
    for (Mount* child : children) tree.push_back(child->shared_from_this());
  }
  return tree;
}

void Mounts::InsertBelowLocked(Mount& mount, Mount& parent, const DentryRef& at, Dropped* dropped) {
  Mount* covered = FindLocked(parent, *at);
  if (covered != nullptr) UnlinkLocked(*covered, dropped);
  LinkLocked(mount, parent, at);
  if (covered != nullptr) LinkLocked(*covered, mount, mount.root);
}

Result<void> Mounts::GraftLocked(const Tree& tree, MountNamespace& space, const Path& at,
                                 bool moving, Dropped* dropped) {
  Mount& top = *tree.front();
  Mount& target = *at.mount;
  MountNamespace* const from = top.space_;
  if (from != &space) TRY(CheckRoomLocked(space, tree.size()));
  MountPropagation propagation(*this, *dropped);
  if (target.group_ != nullptr) {
    std::vector<Mount*> made_shared;
    for (const MountRef& mount : tree) {
      if (mount->group_ != nullptr) continue;
      SetPropagationLocked(*mount, Propagation::kShared);
      made_shared.push_back(mount.get());
    }
    const Result<void> copied = propagation.Copy(target, at.dentry, top);
    if (!copied.ok()) {
      propagation.Discard();
      for (Mount* mount : made_shared) LeaveGroupLocked(*mount);
      return copied.error();
    }
  }
  if (moving) UnlinkLocked(top, dropped);
  if (from != nullptr && from != &space) {
    for (const MountRef& mount : tree) from->mounts_.erase(mount->unique_id);
    if (from->root_.get() == &top) dropped->push_back(std::exchange(from->root_, nullptr));
  }
  LinkLocked(top, target, at.dentry);
  JoinSpaceLocked(tree, space);
  propagation.Commit(at.dentry, space.owner());
  return {};
}

template <typename Action>
Result<void> Mounts::AtMountpoint(const Path& at, Action&& action) {
  // The place must still be the topmost one under both locks, and its name must not go meanwhile.
  constexpr int kTriesMax = 64;
  for (int tries = 0; tries < kTriesMax; ++tries) {
    const Path place = Topmost(at);
    Dropped dropped;
    const absl::MutexLock directory_lock(&place.dentry->change_mutex());
    if (place.dentry->is_deleted()) return Errno(ENOENT);
    const absl::MutexLock lock(&mu_);
    const Path now = TopmostLocked(at);
    if (now == place) return action(place, &dropped);
  }
  return Errno(EBUSY);
}

Result<void> Mounts::Attach(MountNamespace& space, const MountRef& mount, Path at) {
  return AtMountpoint(
      at, [&](const Path& place, Dropped* dropped) ABSL_NO_THREAD_SAFETY_ANALYSIS -> Result<void> {
        if (place.mount->space_ != &space) return Errno(EINVAL);
        // The same thing twice at one place.
        if (place.mount->file_system == mount->file_system && IsRootOfMount(place) &&
            place.mount->root == mount->root)
          return Errno(EBUSY);
        if (mount->root->is_symlink()) return Errno(EINVAL);
        if (place.dentry->is_directory() != mount->root->is_directory()) return Errno(ENOTDIR);
        return GraftLocked({mount}, space, place, false, dropped);
      });
}

bool Mounts::HasLockedChildrenLocked(const Mount& mount, const DentryRef& root) const {
  return std::any_of(mount.children_.begin(), mount.children_.end(), [&](const Mount* child) {
    return child->has_flag(kMountLocked) && IsAtOrBelow(*child->mountpoint_, *root);
  });
}

Result<MountRef> Mounts::Bind(MountNamespace& space, const Path& source, const Path& at,
                              bool recursive) {
  MountRef top;
  if (source.mount->anonymous || WouldLoop(*source.dentry, space)) return Errno(EINVAL);
  TRY(AtMountpoint(
      at, [&](const Path& place, Dropped* dropped) ABSL_NO_THREAD_SAFETY_ANALYSIS -> Result<void> {
        Mount& from = *source.mount;
        if (place.mount->space_ != &space || from.unbindable_) return Errno(EINVAL);
        // Files that name namespaces are bound from a mount that is in no tree.
        if (from.space_ != &space && from.file_system->type_name() != "nsfs") return Errno(EINVAL);
        if (!recursive && HasLockedChildrenLocked(from, source.dentry)) return Errno(EINVAL);
        if (place.dentry->is_directory() != source.dentry->is_directory()) return Errno(ENOTDIR);
        const Tree tree = TRY(
            CopyTreeLocked(from, source.dentry, {.namespace_files_too = true}, recursive, dropped));
        tree.front()->flags.fetch_and(~kMountLocked, std::memory_order_relaxed);
        const Result<void> grafted = GraftLocked(tree, space, place, false, dropped);
        if (!grafted.ok()) DiscardLocked(tree, dropped);
        if (grafted.ok()) top = tree.front();
        dropped->insert(dropped->end(), tree.begin(), tree.end());
        return grafted;
      }));
  return top;
}

Result<void> Mounts::CheckMoveLocked(const MountNamespace& space, const Path& from,
                                     const Path& to) const {
  const Mount& moved = *from.mount;
  if (to.mount->space_ != &space || moved.space_ == nullptr) return Errno(EINVAL);
  const bool attached = moved.parent_ != nullptr;
  if (attached ? moved.space_ != &space
               : !moved.space_->is_detached_tree() || moved.space_->root_ != from.mount)
    return Errno(EINVAL);
  if (moved.has_flag(kMountLocked) || !IsRootOfMount(from)) return Errno(EINVAL);
  if (to.dentry->is_directory() != from.dentry->is_directory()) return Errno(EINVAL);
  if (attached && moved.parent_->group_ != nullptr) return Errno(EINVAL);
  for (const Mount* up = to.mount.get(); up != nullptr; up = up->parent_) {
    if (up == &moved) return Errno(ELOOP);
  }
  return {};
}

Result<void> Mounts::Move(MountNamespace& space, const Path& from, const Path& to) {
  return AtMountpoint(
      to, [&](const Path& place, Dropped* dropped) ABSL_NO_THREAD_SAFETY_ANALYSIS -> Result<void> {
        TRY(CheckMoveLocked(space, from, place));
        const Tree tree = TreeOfLocked(*from.mount);
        dropped->insert(dropped->end(), tree.begin(), tree.end());
        for (const MountRef& mount : tree) {
          if (mount->unbindable_ && place.mount->group_ != nullptr) return Errno(EINVAL);
          if (WouldLoop(*mount->root, space)) return Errno(ELOOP);
        }
        return GraftLocked(tree, space, place, true, dropped);
      });
}

Result<void> Mounts::SetPropagation(MountNamespace& space, const Path& at, Propagation propagation,
                                    bool recursive) {
  if (!IsRootOfMount(at)) return Errno(EINVAL);
  Dropped dropped;
  const absl::MutexLock lock(&mu_);
  if (at.mount->space_ != &space) return Errno(EINVAL);
  const Tree tree = recursive ? TreeOfLocked(*at.mount) : Tree{at.mount};
  for (const MountRef& mount : tree) SetPropagationLocked(*mount, propagation);
  TouchLocked(space);
  dropped.insert(dropped.end(), tree.begin(), tree.end());
  return {};
}

Result<void> Mounts::JoinGroup(MountNamespace& space, const Path& from, const Path& to) {
  if (!IsRootOfMount(from) || !IsRootOfMount(to)) return Errno(EINVAL);
  const absl::MutexLock lock(&mu_);
  Mount& source = *from.mount;
  Mount& target = *to.mount;
  if (source.space_ == nullptr || target.space_ != &space) return Errno(EINVAL);
  if (target.group_ != nullptr || target.master_ != nullptr) return Errno(EINVAL);
  if (source.file_system != target.file_system || !IsAtOrBelow(*target.root, *source.root))
    return Errno(EINVAL);
  if (HasLockedChildrenLocked(source, target.root)) return Errno(EINVAL);
  if (source.group_ == nullptr && source.master_ == nullptr) return Errno(EINVAL);
  target.group_ = source.group_;
  target.master_ = source.master_;
  target.unbindable_ = false;
  if (target.group_ != nullptr) target.group_->members.push_back(&target);
  if (target.master_ != nullptr) target.master_->slaves.push_back(&target);
  TouchLocked(space);
  return {};
}

Result<void> Mounts::SetFlags(MountNamespace& space, const Path& at, uint64_t flags) {
  if (!IsRootOfMount(at)) return Errno(EINVAL);
  const absl::MutexLock lock(&mu_);
  Mount& mount = *at.mount;
  if (mount.space_ != &space) return Errno(EINVAL);
  if (!MayChangeFlags(mount, flags)) return Errno(EPERM);
  if ((flags & MS_RDONLY) != 0 && !mount.has_flag(MS_RDONLY) && mount.has_writers())
    return Errno(EBUSY);
  StoreFlags(mount, flags);
  TouchLocked(space);
  return {};
}

Result<void> Mounts::Change(MountNamespace& space, const Path& at, const MountChange& change,
                            bool recursive) {
  if (!IsRootOfMount(at)) return Errno(EINVAL);
  Dropped dropped;
  const absl::MutexLock lock(&mu_);
  MountNamespace* const owner = at.mount->space_;
  // Ours, or the root of a detached tree.
  if (owner == nullptr || (owner != &space && !owner->is_detached_tree())) return Errno(EINVAL);
  const Tree tree = recursive ? TreeOfLocked(*at.mount) : Tree{at.mount};
  dropped.insert(dropped.end(), tree.begin(), tree.end());
  const auto changed = [&](const Mount& mount) {
    return (mount.flags.load(std::memory_order_relaxed) & ~change.clear) | change.set;
  };
  for (const MountRef& mount : tree) {
    if (!MayChangeFlags(*mount, changed(*mount))) return Errno(EPERM);
    if ((change.set & MS_RDONLY) != 0 && !mount->has_flag(MS_RDONLY) && mount->has_writers())
      return Errno(EBUSY);
  }
  for (const MountRef& mount : tree) {
    StoreFlags(*mount, changed(*mount));
    if (change.has_propagation) SetPropagationLocked(*mount, change.propagation);
  }
  TouchLocked(*owner);
  return {};
}

bool Mounts::IsBusyLocked(const MountRef& mount, long holders) const {
  if (!mount->children_.empty()) return true;
  long known = holders + 1 + (mount->parent_ != nullptr ? 1 : 0);
  if (mount->space_->root_ == mount) ++known;
  if (mount.use_count() > known) return true;
  if (mount->parent_ == nullptr) return false;
  for (const Mount* receiver : MountPropagation::ReceiversOf(*mount->parent_)) {
    const auto found = attached_.find({receiver, mount->mountpoint_.get()});
    if (found == attached_.end() || !found->second->children_.empty()) continue;
    if (found->second.use_count() > 2) return true;
  }
  return false;
}

std::vector<uint64_t> Mounts::ExpiryMarks() const {
  std::vector<uint64_t> marked;
  const absl::ReaderMutexLock lock(&mu_);
  for (const auto& [place, mount] : attached_) {
    if (mount->expiry_mark_.load(std::memory_order_relaxed)) marked.push_back(mount->unique_id);
  }
  return marked;
}

Result<void> Mounts::Unmount(MountNamespace& space, const Path& at, int flags, long holders,
                             bool marked) {
  Dropped dropped;
  const absl::MutexLock lock(&mu_);
  Mount& mount = *at.mount;
  if (!IsRootOfMount(at) || mount.space_ != &space || mount.has_flag(kMountLocked))
    return Errno(EINVAL);
  if ((flags & MNT_EXPIRE) != 0) {
    if (IsBusyLocked(at.mount, holders)) return Errno(EBUSY);
    mount.expiry_mark_ = true;
    if (!marked) return Errno(EAGAIN);
  }
  if ((flags & MNT_DETACH) != 0) {
    UnmountTreeLocked(mount, true, false, false, &dropped);
    return {};
  }
  if (space.root_ == at.mount || IsBusyLocked(at.mount, holders)) return Errno(EBUSY);
  UnmountTreeLocked(mount, true, true, false, &dropped);
  return {};
}

void Mounts::LeaveSpaceLocked(Mount& mount) {
  if (mount.space_ != nullptr) {
    mount.space_->mounts_.erase(mount.unique_id);
    TouchLocked(*mount.space_);
  }
  mount.space_ = nullptr;
  mount.unmounted_ = true;
}

// What the unmounting of `tree` does to mounts at the same places elsewhere: they go, too, unless
// something else is mounted on them.
void Mounts::PropagateUnmountLocked(Tree* tree, Dropped* dropped) {
  for (size_t left = tree->size(); left > 0; --left) {
    const Mount& mount = *(*tree)[left - 1];
    if (mount.parent_ == nullptr) continue;
    const DentryRef at = mount.mountpoint_;
    for (Mount* receiver : MountPropagation::ReceiversOf(*mount.parent_)) {
      Mount* child = FindLocked(*receiver, *at);
      if (child == nullptr || child->unmounted_) continue;
      if (child->has_flag(kMountLocked) && !receiver->unmounted_) continue;
      Mount* covering = nullptr;
      bool in_use = false;
      for (Mount* each : child->children_) {
        if (each->unmounted_) continue;
        if (covering == nullptr && each->mountpoint_ == child->root) {
          covering = each;
        } else {
          in_use = true;
        }
      }
      if (in_use) continue;
      tree->push_back(child->shared_from_this());
      LeaveSpaceLocked(*child);
      if (covering == nullptr) continue;
      UnlinkLocked(*child, dropped);
      UnlinkLocked(*covering, dropped);
      LinkLocked(*covering, *receiver, at);
    }
  }
}

void Mounts::UnmountTreeLocked(Mount& top, bool propagate, bool sync, bool connected,
                               Dropped* dropped) {
  Tree tree = TreeOfLocked(top);
  for (const MountRef& mount : tree) LeaveSpaceLocked(*mount);
  if (propagate) PropagateUnmountLocked(&tree, dropped);
  for (const MountRef& mount : tree) {
    SetPropagationLocked(*mount, Propagation::kPrivate);
    const bool stays = !sync && mount->parent_ != nullptr && mount->parent_->unmounted_ &&
                       (connected || mount->has_flag(kMountLocked));
    if (!stays) UnlinkLocked(*mount, dropped);
  }
  dropped->insert(dropped->end(), tree.begin(), tree.end());
}

void Mounts::DetachFrom(const Dentry& dentry) {
  Dropped dropped;
  const absl::MutexLock lock(&mu_);
  std::vector<Mount*> found;
  for (const auto& [place, mount] : attached_) {
    if (place.second == &dentry) found.push_back(mount.get());
  }
  // Removing one may remove what is in `found` too: each is kept by `dropped` till the end.
  for (Mount* mount : found) dropped.push_back(mount->shared_from_this());
  for (Mount* mount : found) {
    if (mount->space_ != nullptr) UnmountTreeLocked(*mount, false, false, true, &dropped);
    UnlinkLocked(*mount, &dropped);
  }
}

Result<void> Mounts::CheckPivotLocked(const MountNamespace& space, const Path& root,
                                      const Path& new_root, const Path& put_old) const {
  const Mount& root_mount = *root.mount;
  const Mount& new_mount = *new_root.mount;
  const Mount& old_mount = *put_old.mount;
  const auto is_shared = [](const Mount* mount) {
    return mount != nullptr && mount->group_ != nullptr;
  };
  if (is_shared(&old_mount) || is_shared(new_mount.parent_) || is_shared(root_mount.parent_))
    return Errno(EINVAL);
  if (root_mount.space_ != &space || new_mount.space_ != &space || old_mount.space_ != &space)
    return Errno(EINVAL);
  if (new_mount.has_flag(kMountLocked)) return Errno(EINVAL);
  if (new_root.dentry->is_deleted()) return Errno(ENOENT);
  if (&new_mount == &root_mount || &old_mount == &root_mount) return Errno(EBUSY);
  if (!IsRootOfMount(root) || root_mount.parent_ == nullptr) return Errno(EINVAL);
  if (!IsRootOfMount(new_root) || new_mount.parent_ == nullptr) return Errno(EINVAL);
  if (!IsReachableLocked(&old_mount, put_old.dentry, new_root) ||
      !IsReachableLocked(&new_mount, new_root.dentry, root))
    return Errno(EINVAL);
  return {};
}

Result<void> Mounts::PivotRoot(MountNamespace& space, const Path& root, const Path& new_root,
                               const Path& put_old) {
  return AtMountpoint(put_old,
                      [&](const Path& old, Dropped* dropped)
                          ABSL_NO_THREAD_SAFETY_ANALYSIS -> Result<void> {
                            TRY(CheckPivotLocked(space, root, new_root, old));
                            Mount& root_mount = *root.mount;
                            Mount& new_mount = *new_root.mount;
                            Mount& below_root = *root_mount.parent_;
                            const DentryRef place_of_root = root_mount.mountpoint_;
                            UnlinkLocked(new_mount, dropped);
                            UnlinkLocked(root_mount, dropped);
                            if (root_mount.has_flag(kMountLocked)) {
                              new_mount.flags.fetch_or(kMountLocked, std::memory_order_relaxed);
                              root_mount.flags.fetch_and(~kMountLocked, std::memory_order_relaxed);
                            }
                            LinkLocked(root_mount, *old.mount, old.dentry);
                            LinkLocked(new_mount, below_root, place_of_root);
                            TouchLocked(space);
                            return {};
                          });
}

Result<MountNamespaceRef> Mounts::CloneTree(MountNamespace& space, const Path& source,
                                            bool recursive, Path* root) {
  if (source.mount->anonymous) return Errno(EINVAL);
  auto made = std::make_shared<MountNamespace>(shared_from_this(), space.owner(), true);
  Dropped dropped;
  const absl::MutexLock lock(&mu_);
  Mount& from = *source.mount;
  if (from.unbindable_) return Errno(EINVAL);
  if (from.space_ != &space && from.file_system->type_name() != "nsfs") return Errno(EINVAL);
  if (!recursive && HasLockedChildrenLocked(from, source.dentry)) return Errno(EINVAL);
  const Tree tree =
      TRY(CopyTreeLocked(from, source.dentry, {.namespace_files_too = true}, recursive, &dropped));
  dropped.insert(dropped.end(), tree.begin(), tree.end());
  tree.front()->flags.fetch_and(~kMountLocked, std::memory_order_relaxed);
  const Result<void> room = CheckRoomLocked(*made, tree.size());
  if (!room.ok()) {
    DiscardLocked(tree, &dropped);
    return room.error();
  }
  JoinSpaceLocked(tree, *made);
  made->root_ = tree.front();
  *root = {tree.front(), tree.front()->root};
  return made;
}

MountNamespaceRef Mounts::DetachedTree(const MountNamespace& space, const MountRef& mount) {
  auto made = std::make_shared<MountNamespace>(shared_from_this(), space.owner(), true);
  const absl::MutexLock lock(&mu_);
  JoinSpaceLocked({mount}, *made);
  made->root_ = mount;
  return made;
}

Result<MountNamespaceRef> Mounts::CopyNamespace(MountNamespace& space,
                                                const UserNamespaceRef& owner, FsContext& fs) {
  auto made = std::make_shared<MountNamespace>(shared_from_this(), owner, false);
  Path root = fs.root();
  Path working_directory = fs.working_directory();
  {
    Dropped dropped;
    const absl::MutexLock lock(&mu_);
    const bool less_privileged = owner != space.owner();
    if (space.root_ == nullptr) return Errno(EINVAL);
    const Tree tree = TRY(CopyTreeLocked(
        *space.root_, space.root_->root,
        {.shared_to_slave = less_privileged, .unbindable_too = true}, true, &dropped));
    if (less_privileged) {
      for (const MountRef& mount : tree) MountPropagation::LockFlags(*mount);
    }
    JoinSpaceLocked(tree, *made);
    made->root_ = tree.front();
    // The two trees have the same shape, but for files of namespaces.
    std::vector<std::pair<const Mount*, Mount*>> pending{{space.root_.get(), tree.front().get()}};
    const MountRef old_root = root.mount;
    const MountRef old_directory = working_directory.mount;
    for (size_t next = 0; next < pending.size(); ++next) {
      const auto [original, copy] = pending[next];
      if (original == old_root.get()) root.mount = copy->shared_from_this();
      if (original == old_directory.get()) working_directory.mount = copy->shared_from_this();
      for (const Mount* child : original->children_) {
        Mount* twin = FindLocked(*copy, *child->mountpoint_);
        if (twin != nullptr) pending.emplace_back(child, twin);
      }
    }
    dropped.push_back(old_root);
    dropped.push_back(old_directory);
  }
  fs.set_root(std::move(root));
  fs.set_working_directory(std::move(working_directory));
  return made;
}

}  // namespace sentry
