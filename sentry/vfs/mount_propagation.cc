// Peer groups and slaves (mount_namespaces(7), "Shared subtrees"; fs/pnode.c).
//
// A change below a shared mount happens below its peers too, below the slaves of its group, the
// peers of those and so on. All are reached through groups, each of which is visited once; a group
// of slaves has one master, since only a slave's copy can join it.

#include "sentry/vfs/mount_propagation.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"

namespace sentry {

using base::Errno;
using base::Result;

std::shared_ptr<PeerGroup> Mounts::NewGroupLocked() {
  return std::make_shared<PeerGroup>(static_cast<int32_t>(group_ids_.Take()));
}

void Mounts::LeaveMasterLocked(Mount& mount) {
  if (mount.master_ == nullptr) return;
  std::erase(mount.master_->slaves, &mount);
  mount.master_ = nullptr;
}

void Mounts::LeaveGroupLocked(Mount& mount) {
  const std::shared_ptr<PeerGroup> group = std::move(mount.group_);
  mount.group_ = nullptr;
  if (group == nullptr) return;
  std::erase(group->members, &mount);
  if (!group->members.empty()) return;
  // Nobody is left to receive from: the slaves get what this one got.
  const std::shared_ptr<PeerGroup> next = mount.master_;
  for (Mount* slave : group->slaves) {
    slave->master_ = next;
    if (next != nullptr) next->slaves.push_back(slave);
  }
  group->slaves.clear();
  group_ids_.Give(static_cast<uint64_t>(group->id));
}

void Mounts::SetPropagationLocked(Mount& mount, Propagation propagation) {
  if (propagation == Propagation::kShared) {
    if (mount.group_ == nullptr) {
      mount.group_ = NewGroupLocked();
      mount.group_->members.push_back(&mount);
    }
    mount.unbindable_ = false;
    return;
  }
  if (propagation == Propagation::kSlave) {
    // The last one of its group has nobody to be a slave of, but its own master.
    const std::shared_ptr<PeerGroup> group = mount.group_;
    const bool has_peers = group != nullptr && group->members.size() > 1;
    LeaveGroupLocked(mount);
    if (has_peers) {
      LeaveMasterLocked(mount);
      mount.master_ = group;
      group->slaves.push_back(&mount);
    }
    mount.unbindable_ = false;
    return;
  }
  LeaveGroupLocked(mount);
  LeaveMasterLocked(mount);
  mount.unbindable_ = propagation == Propagation::kUnbindable;
}

std::vector<Mount*> MountPropagation::ReceiversOf(const Mount& mount) {
  std::vector<Mount*> receivers;
  if (mount.group_ == nullptr) return receivers;
  absl::flat_hash_set<const PeerGroup*> seen{mount.group_.get()};
  std::vector<const PeerGroup*> pending{mount.group_.get()};
  while (!pending.empty()) {
    const PeerGroup* group = pending.back();
    pending.pop_back();
    for (Mount* member : group->members) {
      if (member != &mount) receivers.push_back(member);
    }
    for (Mount* slave : group->slaves) {
      if (slave->group_ == nullptr) {
        receivers.push_back(slave);
      } else if (seen.insert(slave->group_.get()).second) {
        pending.push_back(slave->group_.get());
      }
    }
  }
  return receivers;
}

Result<void> MountPropagation::CopyTo(Mount& receiver, Mount& source,
                                      const Mounts::CopyFlags& how) {
  Mounts::Tree tree = TRY(mounts_.CopyTreeLocked(source, source.root, how, true, &dropped_));
  copies_.push_back({std::move(tree), &receiver});
  size_t& more = added_[receiver.space_];
  more += copies_.back().tree.size();
  return mounts_.CheckRoomLocked(*receiver.space_, more);
}

Result<void> MountPropagation::Copy(Mount& target, const DentryRef& at, Mount& source) {
  struct Step {
    PeerGroup* group;
    Mount* source;
  };
  const auto receives = [&](const Mount* mount) {
    return mount->space_ != nullptr && !mount->space_->is_detached_tree() &&
           IsAtOrBelow(*at, *mount->root);
  };
  absl::flat_hash_set<const PeerGroup*> seen{target.group_.get()};
  std::vector<Step> pending{{target.group_.get(), &source}};
  // Copies join groups, so each list is walked as it was.
  const std::vector<Mount*> peers = target.group_->members;
  for (Mount* peer : peers) {
    if (peer != &target && receives(peer)) TRY(CopyTo(*peer, source, {}));
  }
  while (!pending.empty()) {
    const Step step = pending.back();
    pending.pop_back();
    const std::vector<Mount*> slaves = step.group->slaves;
    for (Mount* slave : slaves) {
      PeerGroup* group = slave->group_.get();
      if (group == nullptr) {
        if (receives(slave)) TRY(CopyTo(*slave, *step.source, {.slave = true}));
        continue;
      }
      if (!seen.insert(group).second) continue;
      Mount* first = nullptr;
      const std::vector<Mount*> members = group->members;
      for (Mount* member : members) {
        if (!receives(member)) continue;
        if (first == nullptr) {
          TRY(CopyTo(*member, *step.source, {.slave = true, .make_shared = true}));
          first = copies_.back().tree.front().get();
        } else {
          TRY(CopyTo(*member, *first, {}));
        }
      }
      pending.push_back({group, first != nullptr ? first : step.source});
    }
  }
  return {};
}

void MountPropagation::Discard() {
  for (const PendingCopy& copy : copies_) mounts_.DiscardLocked(copy.tree, &dropped_);
  copies_.clear();
}

void MountPropagation::Commit(const DentryRef& at, const UserNamespaceRef& owner) {
  for (PendingCopy& copy : copies_) {
    Mount& top = *copy.tree.front();
    if (copy.receiver->space_->owner() != owner) {
      for (const MountRef& each : copy.tree) LockFlags(*each);
    }
    top.flags.fetch_and(~kMountLocked, std::memory_order_relaxed);
    mounts_.InsertBelowLocked(top, *copy.receiver, at, &dropped_);
    mounts_.JoinSpaceLocked(copy.tree, *copy.receiver->space_);
  }
  copies_.clear();
}

void MountPropagation::LockFlags(Mount& mount) {
  const uint64_t flags = mount.flags.load(std::memory_order_relaxed);
  uint64_t locks = kMountLocked | kMountLockAtime;
  if ((flags & MS_RDONLY) != 0) locks |= kMountLockReadOnly;
  if ((flags & MS_NODEV) != 0) locks |= kMountLockNoDev;
  if ((flags & MS_NOSUID) != 0) locks |= kMountLockNoSuid;
  if ((flags & MS_NOEXEC) != 0) locks |= kMountLockNoExec;
  mount.flags.fetch_or(locks, std::memory_order_relaxed);
}

}  // namespace sentry
