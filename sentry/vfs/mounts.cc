// Making, finding and forgetting mounts. Changes of the tree are in mounts_change.cc, what other
// mounts see of them in mount_propagation.cc.

#include "sentry/vfs/mounts.h"

#include <algorithm>
#include <utility>

#include "platform/base/check.h"
#include "sentry/vfs/dentry_cache.h"
#include "sentry/vfs/inode.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// Below the root of each sandbox, where no walk comes (Linux's rootfs).
class HiddenRoot final : public FileSystem {
 public:
  HiddenRoot() : root_(std::make_shared<Directory>(*this)) {}
  std::string_view type_name() const override { return "rootfs"; }
  InodeRef root() override { return root_; }
  Result<FileSystemStatus> Status() override { return FileSystemStatus{}; }
  uint64_t device() const override { return device_; }

 private:
  class Directory final : public Inode {
   public:
    using Inode::Inode;
    uint32_t type() const override { return S_IFDIR; }
    Result<Attributes> GetAttributes() override {
      Attributes attributes;
      attributes.mode = S_IFDIR | 0755;
      attributes.inode = 1;
      attributes.nlink = 2;
      attributes.device = file_system().device();
      return attributes;
    }
    Result<InodeRef> Lookup(std::string_view) override { return Errno(ENOENT); }
  };
  const uint64_t device_ = AllocateDevice();
  const InodeRef root_;
};

}  // namespace

uint32_t AllocateNamespaceNumber() {
  // Process-wide on purpose, as AllocateDevice: a number names one namespace whoever shows it.
  static std::atomic<uint32_t> next{0xF0000000U};
  return next.fetch_add(1, std::memory_order_relaxed);
}

bool Mount::read_only() const {
  return (flags.load(std::memory_order_relaxed) & MS_RDONLY) != 0 || file_system->read_only();
}

Mount::~Mount() {
  if (anonymous || file_system == nullptr) return;
  if (const std::shared_ptr<Mounts> mounts = mounts_.lock()) mounts->Forget(*this);
}

MountNamespace::MountNamespace(std::shared_ptr<Mounts> mounts, UserNamespaceRef owner,
                               bool detached)
    : Namespace(NamespaceKind::kMount, std::move(owner)),
      mounts_owner_(std::move(mounts)),
      detached_(detached),
      sequence_(mounts_owner_->NextSequence()) {}

MountNamespace::~MountNamespace() { mounts_owner_->Clear(*this); }

uint64_t Mounts::Numbers::Take() {
  if (free_.empty()) return next_++;
  return free_.extract(free_.begin()).value();
}

bool IsAtOrBelow(const Dentry& dentry, const Dentry& ancestor) {
  if (&dentry == &ancestor) return true;
  for (DentryRef up = dentry.parent(); up != nullptr; up = up->parent()) {
    if (up.get() == &ancestor) return true;
  }
  return false;
}

uint64_t MountFlagsOf(uint64_t ms_flags) {
  uint64_t flags = ms_flags & kMountSettable;
  if ((flags & MS_STRICTATIME) != 0) {
    flags &= ~uint64_t{MS_RELATIME | MS_NOATIME};
  } else if ((flags & MS_NOATIME) == 0) {
    flags |= MS_RELATIME;
  } else {
    flags &= ~uint64_t{MS_RELATIME};
  }
  return flags;
}

Mounts::Mounts() : cache_(std::make_unique<DentryCache>()) {}
Mounts::~Mounts() = default;

DentryRef Mounts::RootDentryLocked(FileSystem& file_system) {
  std::weak_ptr<Dentry>& place = roots_[&file_system];
  DentryRef dentry = place.lock();
  if (dentry == nullptr || dentry->inode().get() != file_system.root().get()) {
    dentry = std::make_shared<Dentry>(nullptr, "/", file_system.root());
    place = dentry;
  }
  return dentry;
}

MountRef Mounts::MakeLocked(FileSystemRef file_system, DentryRef root, std::string source,
                            uint64_t flags) {
  auto mount = std::make_shared<Mount>();
  mount->file_system = std::move(file_system);
  mount->root = std::move(root);
  mount->source = std::move(source);
  mount->flags.store(flags, std::memory_order_relaxed);
  mount->id = ids_.Take();
  mount->unique_id = next_unique_id_++;
  mount->mounts_ = weak_from_this();
  mount->file_system->mount_count().fetch_add(1, std::memory_order_relaxed);
  ++count_;
  return mount;
}

MountRef Mounts::NewMount(FileSystemRef file_system, std::string source, uint64_t flags,
                          InodeRef subtree) {
  const absl::MutexLock lock(&mu_);
  DentryRef dentry = subtree != nullptr && subtree != file_system->root()
                         ? std::make_shared<Dentry>(nullptr, "/", std::move(subtree))
                         : RootDentryLocked(*file_system);
  return MakeLocked(std::move(file_system), std::move(dentry), std::move(source), flags);
}

MountRef Mounts::NewFileMount(FileSystemRef file_system, InodeRef file, std::string name,
                              std::string source) {
  const absl::MutexLock lock(&mu_);
  auto root = std::make_shared<Dentry>(nullptr, std::move(name), std::move(file));
  return MakeLocked(std::move(file_system), std::move(root), std::move(source), 0);
}

void Mounts::Forget(Mount& mount) {
  Dropped dropped;
  bool last = false;
  {
    const absl::MutexLock lock(&mu_);
    LeaveGroupLocked(mount);
    LeaveMasterLocked(mount);
    // What stayed connected to a mount that was detached (UnmountTreeLocked), down to what
    // somebody uses: not by one destructor in another, since guests make deep trees.
    std::vector<Mount*> going{&mount};
    while (!going.empty()) {
      Mount* const parent = going.back();
      going.pop_back();
      while (!parent->children_.empty()) {
        Mount* const child = parent->children_.back();
        UnlinkLocked(*child, &dropped);
        if (child->weak_from_this().use_count() == 1) going.push_back(child);
      }
    }
    ids_.Give(mount.id);
    --count_;
    last = mount.file_system->mount_count().fetch_sub(1, std::memory_order_acq_rel) == 1;
    if (last) roots_.erase(mount.file_system.get());
  }
  if (!last || !mount.root->is_directory()) return;
  // Directories and their cached children refer to each other.
  DentryRef top = mount.root;
  for (DentryRef up = top->parent(); up != nullptr; up = top->parent()) top = std::move(up);
  cache_->PruneTree(top);
}

void Mounts::Clear(MountNamespace& space) {
  Dropped dropped;
  const absl::MutexLock lock(&mu_);
  MountRef root = std::move(space.root_);
  if (root != nullptr) UnmountTreeLocked(*root, false, false, true, &dropped);
  // A member that is not below the root: of a tree that was half made.
  while (!space.mounts_.empty())
    UnmountTreeLocked(*space.mounts_.begin()->second, false, false, true, &dropped);
  dropped.push_back(std::move(root));
}

Result<MountRef> Mounts::MountRoot(FileSystemRef file_system, std::string source, uint64_t flags) {
  if (initial_ != nullptr) return Errno(EBUSY);
  auto space = std::make_shared<MountNamespace>(shared_from_this(), nullptr, false);
  auto hidden_file_system = std::make_shared<HiddenRoot>();
  const absl::MutexLock lock(&mu_);
  DentryRef hidden_root = RootDentryLocked(*hidden_file_system);
  MountRef hidden = MakeLocked(std::move(hidden_file_system), hidden_root, "rootfs", 0);
  DentryRef dentry = RootDentryLocked(*file_system);
  MountRef mount = MakeLocked(std::move(file_system), std::move(dentry), std::move(source), flags);
  LinkLocked(*mount, *hidden, hidden_root);
  JoinSpaceLocked({hidden, mount}, *space);
  space->root_ = std::move(hidden);
  initial_ = std::move(space);
  return mount;
}

void Mounts::Shutdown() {
  if (initial_ == nullptr) return;
  MountNamespaceRef space = std::move(initial_);
  initial_ = nullptr;
  Clear(*space);
}

Path Mounts::initial_root() const { return initial_ == nullptr ? Path{} : RootOf(*initial_); }

Path Mounts::RootOf(const MountNamespace& space) const {
  const absl::ReaderMutexLock lock(&mu_);
  if (space.root_ == nullptr) return {};
  return TopmostLocked({space.root_, space.root_->root});
}

Mount* Mounts::FindLocked(const Mount& parent, const Dentry& at) const {
  if (!at.has_mounts()) return nullptr;
  const auto found = attached_.find({&parent, &at});
  return found == attached_.end() ? nullptr : found->second.get();
}

Path Mounts::TopmostLocked(const Path& path) const {
  Path top = path;
  const MountRef* mount = nullptr;
  for (const Dentry* at = path.dentry.get(); at->has_mounts(); at = (*mount)->root.get()) {
    const auto found = attached_.find({mount == nullptr ? path.mount.get() : mount->get(), at});
    if (found == attached_.end()) break;
    mount = &found->second;
  }
  if (mount != nullptr) top = {*mount, (*mount)->root};
  return top;
}

Path Mounts::Topmost(const Path& path) const {
  const absl::ReaderMutexLock lock(&mu_);
  Path top = TopmostLocked(path);
  if (top.mount->expiry_mark_.load(std::memory_order_relaxed)) top.mount->expiry_mark_ = false;
  return top;
}

Path Mounts::TopmostOf(const Mount& mount, const Dentry& dentry) const {
  Path path;
  const absl::ReaderMutexLock lock(&mu_);
  for (auto found = attached_.find({&mount, &dentry}); found != attached_.end();
       found = attached_.find({path.mount.get(), path.dentry.get()})) {
    path = {found->second, found->second->root};
  }
  if (path.mount != nullptr && path.mount->expiry_mark_.load(std::memory_order_relaxed))
    path.mount->expiry_mark_ = false;
  return path;
}

Path Mounts::MountpointOf(const Mount& mount) const {
  const absl::ReaderMutexLock lock(&mu_);
  MountRef parent = mount.parent_ == nullptr ? nullptr : mount.parent_->weak_from_this().lock();
  if (parent == nullptr) return {};
  return {std::move(parent), mount.mountpoint_};
}

std::vector<MountRef> Mounts::MountsOf(const MountNamespace& space) const {
  std::vector<MountRef> all;
  const absl::ReaderMutexLock lock(&mu_);
  all.reserve(space.mounts_.size());
  for (const auto& [id, mount] : space.mounts_) all.push_back(mount);
  return all;
}

MountView Mounts::ViewLocked(const MountRef& mount) const {
  MountView view;
  view.mount = mount;
  view.parent_id = mount->id;
  view.parent_unique_id = mount->unique_id;
  if (mount->parent_ != nullptr) {
    view.parent_id = mount->parent_->id;
    view.parent_unique_id = mount->parent_->unique_id;
    view.at = {mount->parent_->weak_from_this().lock(), mount->mountpoint_};
  }
  if (mount->group_ != nullptr) view.peer_group = mount->group_->id;
  if (mount->master_ != nullptr) view.master_group = mount->master_->id;
  view.unbindable = mount->unbindable_;
  return view;
}

std::vector<MountView> Mounts::Views(const MountNamespace& space) const {
  std::vector<MountView> views;
  const absl::ReaderMutexLock lock(&mu_);
  views.reserve(space.mounts_.size());
  for (const auto& [id, mount] : space.mounts_) views.push_back(ViewLocked(mount));
  return views;
}

MountView Mounts::ViewOf(const MountNamespace& space, uint64_t unique_id) const {
  const absl::ReaderMutexLock lock(&mu_);
  const auto found = space.mounts_.find(unique_id);
  return found == space.mounts_.end() ? MountView{} : ViewLocked(found->second);
}

bool Mounts::IsIn(const Mount& mount, const MountNamespace& space) const {
  const absl::ReaderMutexLock lock(&mu_);
  return mount.space_ == &space;
}

bool Mounts::IsReachableLocked(const Mount* mount, const DentryRef& dentry,
                               const Path& root) const {
  const Dentry* at = dentry.get();
  while (mount != root.mount.get()) {
    if (mount->parent_ == nullptr) return false;
    at = mount->mountpoint_.get();
    mount = mount->parent_;
  }
  return IsAtOrBelow(*at, *root.dentry);
}

bool Mounts::IsReachable(const Path& path, const Path& root) const {
  const absl::ReaderMutexLock lock(&mu_);
  return IsReachableLocked(path.mount.get(), path.dentry, root);
}

int32_t Mounts::DominatingGroup(const MountView& view, const MountNamespace& space,
                                const Path& root) const {
  const absl::ReaderMutexLock lock(&mu_);
  // Masters form a chain; no group is its own master's master.
  for (const PeerGroup* group = view.mount->master_.get(); group != nullptr;) {
    for (const Mount* member : group->members) {
      if (member->space_ == &space && IsReachableLocked(member, member->root, root))
        return group->id;
    }
    group = group->members.empty() ? nullptr : group->members.front()->master_.get();
  }
  return 0;
}

bool Mounts::IsMountpoint(const Dentry& dentry, const MountNamespace& space) const {
  if (!dentry.has_mounts()) return false;
  const absl::ReaderMutexLock lock(&mu_);
  return std::any_of(attached_.begin(), attached_.end(), [&](const auto& entry) {
    return entry.first.second == &dentry && entry.second->space_ == &space;
  });
}

bool Mounts::HasWriters(const FileSystem& file_system) const {
  const absl::ReaderMutexLock lock(&mu_);
  return std::any_of(attached_.begin(), attached_.end(), [&](const auto& entry) {
    return entry.second->file_system.get() == &file_system && entry.second->has_writers();
  });
}

void Mounts::TouchLocked(MountNamespace& space) {
  space.events_.fetch_add(1, std::memory_order_acq_rel);
  tree_changes_.fetch_add(1, std::memory_order_acq_rel);
}

void Mounts::LinkLocked(Mount& mount, Mount& parent, const DentryRef& at) {
  mount.parent_ = &parent;
  mount.mountpoint_ = at;
  parent.children_.push_back(&mount);
  attached_.insert_or_assign(Place{&parent, at.get()}, mount.shared_from_this());
  at->mounts_here_.fetch_add(1, std::memory_order_acq_rel);
}

void Mounts::UnlinkLocked(Mount& mount, Dropped* dropped) {
  if (mount.parent_ == nullptr) return;
  const auto found = attached_.find({mount.parent_, mount.mountpoint_.get()});
  if (found != attached_.end() && found->second.get() == &mount) {
    dropped->push_back(std::move(found->second));
    attached_.erase(found);
  }
  std::erase(mount.parent_->children_, &mount);
  mount.parent_ = nullptr;
  mount.mountpoint_->mounts_here_.fetch_sub(1, std::memory_order_acq_rel);
  dropped->push_back(std::move(mount.mountpoint_));
  mount.mountpoint_ = nullptr;
}

void Mounts::JoinSpaceLocked(const Tree& tree, MountNamespace& space) {
  for (const MountRef& mount : tree) {
    mount->space_ = &space;
    mount->unmounted_ = false;
    space.mounts_.emplace(mount->unique_id, mount);
  }
  TouchLocked(space);
}

}  // namespace sentry
