#pragma once

// The mounts of a sandbox: their trees, one per mount namespace, and every change of them
// (fs/namespace.c, fs/pnode.c of Linux 6.12). System calls and set-up code use the same
// operations: both say for which namespace they act, and the caller has checked that they may
// (MayMount).
//
// One lock guards all of it, as Linux's namespace_sem does. References to mounts and namespaces
// are never dropped under it, since the last one takes it.

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/path.h"

namespace sentry {

class DentryCache;
class FsContext;

enum class Propagation : uint8_t { kPrivate, kShared, kSlave, kUnbindable };

// mount_setattr(2).
struct MountChange {
  uint64_t set = 0;    // MS_*
  uint64_t clear = 0;  // MS_*
  bool has_propagation = false;
  Propagation propagation = Propagation::kPrivate;
};

// One mount as /proc/PID/mountinfo, statmount(2) and listmount(2) tell of it.
struct MountView {
  MountRef mount;
  uint64_t parent_id = 0;
  uint64_t parent_unique_id = 0;
  Path at;  // Where it is attached; null for the root of its tree.
  int32_t peer_group = 0;
  int32_t master_group = 0;
  bool unbindable = false;
};

class Mounts : public std::enable_shared_from_this<Mounts> {
 public:
  // fs.mount-max, for each namespace; and for all of them together.
  static constexpr uint64_t kMountsMax = 100000;
  static constexpr uint64_t kMountsInAllMax = 400000;

  Mounts();
  ~Mounts();

  // --- The initial namespace.
  // The first file system becomes the root: upon a mount that nobody can reach, as Linux's rootfs,
  // so that pivot_root(2) has something to put the new root on.
  base::Result<MountRef> MountRoot(FileSystemRef file_system, std::string source, uint64_t flags)
      ABSL_LOCKS_EXCLUDED(mu_);
  const MountNamespaceRef& initial() const { return initial_; }
  Path initial_root() const ABSL_LOCKS_EXCLUDED(mu_);
  // Before the Vfs goes: the initial tree, all names of it.
  void Shutdown() ABSL_LOCKS_EXCLUDED(mu_);

  // --- Questions.
  // What is mounted on top of `path`, or `path` itself.
  Path Topmost(const Path& path) const ABSL_LOCKS_EXCLUDED(mu_);
  // Likewise what is mounted on `dentry` itself; null if nothing.
  Path TopmostOf(const Mount& mount, const Dentry& dentry) const ABSL_LOCKS_EXCLUDED(mu_);
  // Where it is attached; null for the root of a tree.
  Path MountpointOf(const Mount& mount) const ABSL_LOCKS_EXCLUDED(mu_);
  // In order of making.
  std::vector<MountRef> MountsOf(const MountNamespace& space) const ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<MountView> Views(const MountNamespace& space) const ABSL_LOCKS_EXCLUDED(mu_);
  // Null mount: none of that id in the namespace.
  MountView ViewOf(const MountNamespace& space, uint64_t unique_id) const ABSL_LOCKS_EXCLUDED(mu_);
  // The peer group nearest to `mount`, among its masters, that has a member below `root`
  // (mountinfo's propagate_from); 0 if none.
  int32_t DominatingGroup(const MountView& view, const MountNamespace& space,
                          const Path& root) const ABSL_LOCKS_EXCLUDED(mu_);
  bool IsIn(const Mount& mount, const MountNamespace& space) const ABSL_LOCKS_EXCLUDED(mu_);
  // Path is at or below `root`, in the tree of mounts.
  bool IsReachable(const Path& path, const Path& root) const ABSL_LOCKS_EXCLUDED(mu_);
  // Somebody has a file of it open for writing.
  bool HasWriters(const FileSystem& file_system) const ABSL_LOCKS_EXCLUDED(mu_);
  // Something is mounted on `dentry` in `space`.
  bool IsMountpoint(const Dentry& dentry, const MountNamespace& space) const
      ABSL_LOCKS_EXCLUDED(mu_);
  // The root of a namespace, with what is mounted upon it: where setns(2) puts a task.
  Path RootOf(const MountNamespace& space) const ABSL_LOCKS_EXCLUDED(mu_);

  // --- Changes. Errors are mount(2)'s, umount2(2)'s, pivot_root(2)'s.
  // Not attached anywhere. `subtree`: show that inode of the file system instead of its root.
  MountRef NewMount(FileSystemRef file_system, std::string source, uint64_t flags,
                    InodeRef subtree = nullptr) ABSL_LOCKS_EXCLUDED(mu_);
  // Likewise, of a file that has a name instead of a place (nsfs).
  MountRef NewFileMount(FileSystemRef file_system, InodeRef file, std::string name,
                        std::string source) ABSL_LOCKS_EXCLUDED(mu_);
  // Puts a mount that NewMount has made on the topmost thing at `at`.
  base::Result<void> Attach(MountNamespace& space, const MountRef& mount, Path at)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<MountRef> Bind(MountNamespace& space, const Path& source, const Path& at,
                              bool recursive) ABSL_LOCKS_EXCLUDED(mu_);
  // mount --move; also the root of a detached tree, which becomes part of `space`.
  base::Result<void> Move(MountNamespace& space, const Path& from, const Path& to)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> SetPropagation(MountNamespace& space, const Path& at, Propagation propagation,
                                    bool recursive) ABSL_LOCKS_EXCLUDED(mu_);
  // move_mount(2) with MOVE_MOUNT_SET_GROUP.
  base::Result<void> JoinGroup(MountNamespace& space, const Path& from, const Path& to)
      ABSL_LOCKS_EXCLUDED(mu_);
  // mount -o remount,bind: `flags` replaces what is settable.
  base::Result<void> SetFlags(MountNamespace& space, const Path& at, uint64_t flags)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Change(MountNamespace& space, const Path& at, const MountChange& change,
                            bool recursive) ABSL_LOCKS_EXCLUDED(mu_);
  // MNT_EXPIRE: the mounts that were seen unused, and nobody has come to since. A walk to one is
  // such a coming, so who means to expire one asks before.
  std::vector<uint64_t> ExpiryMarks() const ABSL_LOCKS_EXCLUDED(mu_);
  // `marked`: it was among those. `holders`: references to the mount that the caller has, `at`
  // among them. MNT_* flags.
  base::Result<void> Unmount(MountNamespace& space, const Path& at, int flags, long holders,
                             bool marked = false) ABSL_LOCKS_EXCLUDED(mu_);
  // `root`: the caller's. The caller then moves tasks from the old root to the new one.
  base::Result<void> PivotRoot(MountNamespace& space, const Path& root, const Path& new_root,
                               const Path& put_old) ABSL_LOCKS_EXCLUDED(mu_);
  // open_tree(2) with OPEN_TREE_CLONE: a copy that is mounted nowhere; its root is `*root`.
  base::Result<MountNamespaceRef> CloneTree(MountNamespace& space, const Path& source,
                                            bool recursive, Path* root) ABSL_LOCKS_EXCLUDED(mu_);
  // fsmount(2).
  MountNamespaceRef DetachedTree(const MountNamespace& space, const MountRef& mount)
      ABSL_LOCKS_EXCLUDED(mu_);
  // clone(2) with CLONE_NEWNS. `owner`: of the copy. Places in `fs` move along.
  base::Result<MountNamespaceRef> CopyNamespace(MountNamespace& space,
                                                const UserNamespaceRef& owner, FsContext& fs)
      ABSL_LOCKS_EXCLUDED(mu_);
  // `dentry` has been removed: what other namespaces had mounted on it goes.
  void DetachFrom(const Dentry& dentry) ABSL_LOCKS_EXCLUDED(mu_);

  // Mounts and moves so far: see openat2(2), EAGAIN.
  std::atomic<uint64_t>& tree_changes() { return tree_changes_; }
  std::atomic<uint64_t>& mounts_max() { return mounts_max_; }
  DentryCache& cache() { return *cache_; }
  uint64_t NextSequence() { return next_sequence_.fetch_add(1, std::memory_order_relaxed); }

 private:
  friend class Mount;
  friend class MountNamespace;
  friend class MountPropagation;

  // How a mount is copied.
  struct CopyFlags {
    bool slave = false;            // The copy receives from the original's group.
    bool shared_to_slave = false;  // Only where the original is shared.
    bool private_copy = false;
    bool make_shared = false;
    bool unbindable_too = false;
    bool namespace_files_too = false;
  };
  // The top first, each parent before its children.
  using Tree = std::vector<MountRef>;
  // What is released after the lock.
  using Dropped = std::vector<std::shared_ptr<void>>;
  using Place = std::pair<const Mount*, const Dentry*>;

  MountRef MakeLocked(FileSystemRef file_system, DentryRef root, std::string source, uint64_t flags)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  DentryRef RootDentryLocked(FileSystem& file_system) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  MountRef CopyMountLocked(Mount& from, DentryRef root, const CopyFlags& how)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<Tree> CopyTreeLocked(Mount& from, const DentryRef& root, const CopyFlags& how,
                                    bool recursive, Dropped* dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // A tree that got no place.
  void DiscardLocked(const Tree& tree, Dropped* dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // All of the tree that `top` is the top of.
  Tree TreeOfLocked(Mount& top) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  Path TopmostLocked(const Path& path) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  Mount* FindLocked(const Mount& parent, const Dentry& at) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void LinkLocked(Mount& mount, Mount& parent, const DentryRef& at)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void UnlinkLocked(Mount& mount, Dropped* dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void JoinSpaceLocked(const Tree& tree, MountNamespace& space) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The tree at `top` gets its place, and copies of it where `parent` propagates to.
  base::Result<void> GraftLocked(const Tree& tree, MountNamespace& space, const Path& at,
                                 bool moving, Dropped* dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<void> CheckRoomLocked(const MountNamespace& space, size_t more) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // On top of `parent`, below what is there already.
  void InsertBelowLocked(Mount& mount, Mount& parent, const DentryRef& at, Dropped* dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Calls action(place, dropped) for the topmost thing at `at`, under its change lock and the
  // mount lock.
  template <typename Action>
  base::Result<void> AtMountpoint(const Path& at, Action&& action) ABSL_LOCKS_EXCLUDED(mu_);
  void LeaveSpaceLocked(Mount& mount) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PropagateUnmountLocked(Tree* tree, Dropped* dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void UnmountTreeLocked(Mount& top, bool propagate, bool sync, bool connected, Dropped* dropped)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsBusyLocked(const MountRef& mount, long holders) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  base::Result<void> CheckMoveLocked(const MountNamespace& space, const Path& from,
                                     const Path& to) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  base::Result<void> CheckPivotLocked(const MountNamespace& space, const Path& root,
                                      const Path& new_root, const Path& put_old) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool IsReachableLocked(const Mount* mount, const DentryRef& dentry, const Path& root) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool HasLockedChildrenLocked(const Mount& mount, const DentryRef& root) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  MountView ViewLocked(const MountRef& mount) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void SetPropagationLocked(Mount& mount, Propagation propagation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LeaveGroupLocked(Mount& mount) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void LeaveMasterLocked(Mount& mount) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::shared_ptr<PeerGroup> NewGroupLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TouchLocked(MountNamespace& space);
  // Called by the destructors.
  void Forget(Mount& mount) ABSL_LOCKS_EXCLUDED(mu_);
  void Clear(MountNamespace& space) ABSL_LOCKS_EXCLUDED(mu_);

  // Lowest free numbers.
  class Numbers {
   public:
    explicit Numbers(uint64_t first) : next_(first) {}
    uint64_t Take();
    void Give(uint64_t number) { free_.insert(number); }

   private:
    uint64_t next_;
    std::set<uint64_t> free_;
  };

  const std::unique_ptr<DentryCache> cache_;
  std::atomic<uint64_t> tree_changes_{0};
  std::atomic<uint64_t> mounts_max_{kMountsMax};
  std::atomic<uint64_t> next_sequence_{1};
  mutable absl::Mutex mu_;
  absl::flat_hash_map<Place, MountRef> attached_ ABSL_GUARDED_BY(mu_);
  // One tree of dentries per file system, whatever the number of its mounts.
  absl::flat_hash_map<const FileSystem*, std::weak_ptr<Dentry>> roots_ ABSL_GUARDED_BY(mu_);
  Numbers ids_ ABSL_GUARDED_BY(mu_){20};
  Numbers group_ids_ ABSL_GUARDED_BY(mu_){1};
  uint64_t next_unique_id_ ABSL_GUARDED_BY(mu_) = (uint64_t{1} << 31) + 1;
  uint64_t count_ ABSL_GUARDED_BY(mu_) = 0;  // Of all namespaces.
  MountNamespaceRef initial_;                // Set by MountRoot, before the first task.
};

// `dentry` is `ancestor` or below it.
bool IsAtOrBelow(const Dentry& dentry, const Dentry& ancestor);

// Flags of mount(2) that belong to the mount, with the default for access times.
uint64_t MountFlagsOf(uint64_t ms_flags);

}  // namespace sentry
