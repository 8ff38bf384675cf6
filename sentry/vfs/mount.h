#pragma once

// One mount: a file system, or a subtree of one, at a place in the tree of a mount namespace
// (mount_namespaces(7)). What changes after it was made is guarded by the lock of the sandbox's
// Mounts (mounts.h), but for the flags.

#include <sys/mount.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sentry/kernel/namespace.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file_system.h"

namespace sentry {

class Mounts;
class MountNamespace;

inline constexpr uint64_t kMountNoSymlinkFollow = 256;  // MS_NOSYMFOLLOW
inline constexpr uint64_t kMountAtimeMask =
    MS_NOATIME | MS_NODIRATIME | MS_RELATIME | MS_STRICTATIME;
// What a guest may set on a mount.
inline constexpr uint64_t kMountSettable =
    MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | kMountAtimeMask | kMountNoSymlinkFollow;
// What it may set on a file system.
inline constexpr uint64_t kSuperSettable = MS_RDONLY | MS_SYNCHRONOUS | MS_MANDLOCK | MS_DIRSYNC |
                                           MS_SILENT | MS_LAZYTIME | MS_POSIXACL | MS_I_VERSION;
// A less privileged namespace has got the mount from a more privileged one: it stays with its
// parent, and these flags stay set.
inline constexpr uint64_t kMountLocked = uint64_t{1} << 40;
inline constexpr uint64_t kMountLockReadOnly = uint64_t{1} << 41;
inline constexpr uint64_t kMountLockNoDev = uint64_t{1} << 42;
inline constexpr uint64_t kMountLockNoSuid = uint64_t{1} << 43;
inline constexpr uint64_t kMountLockNoExec = uint64_t{1} << 44;
inline constexpr uint64_t kMountLockAtime = uint64_t{1} << 45;

// Mounts that get each other's mounts and unmounts; and those that only receive.
struct PeerGroup {
  explicit PeerGroup(int32_t id_in) : id(id_in) {}
  const int32_t id;
  std::vector<class Mount*> members;
  std::vector<class Mount*> slaves;
};

class Mount : public std::enable_shared_from_this<Mount> {
 public:
  Mount() = default;
  Mount(const Mount&) = delete;
  Mount& operator=(const Mount&) = delete;
  ~Mount();

  FileSystemRef file_system;
  std::shared_ptr<Dentry> root;
  std::string source;              // As given to mount(2).
  std::atomic<uint64_t> flags{0};  // MS_RDONLY, MS_NOSUID, ...; kMountLocked and what follows.
  bool anonymous = false;          // Holds one file that has no place in the tree (memfd).
  uint64_t id = 0;                 // Small, used again once the mount has gone.
  uint64_t unique_id = 0;          // Never used again.

  bool has_flag(uint64_t flag) const { return (flags.load(std::memory_order_relaxed) & flag) != 0; }
  bool read_only() const;
  // Files of it that are open for writing: it does not become read-only then.
  std::atomic<int64_t>& writers() { return writers_; }
  bool has_writers() const { return writers_.load(std::memory_order_relaxed) > 0; }

 private:
  friend class Mounts;
  friend class MountNamespace;
  friend class MountPropagation;

  // Both null for the root of a tree. A mount that goes away takes itself out of its children
  // first, under the lock.
  Mount* parent_ = nullptr;
  std::shared_ptr<Dentry> mountpoint_;
  std::vector<Mount*> children_;
  MountNamespace* space_ = nullptr;    // Null: unmounted, or of a tree that is being made.
  std::shared_ptr<PeerGroup> group_;   // Shared.
  std::shared_ptr<PeerGroup> master_;  // Slave.
  bool unbindable_ = false;
  std::atomic<int64_t> writers_{0};
  bool unmounted_ = false;  // Was in a namespace and left it.
  std::atomic<bool> expiry_mark_{
      false};                     // MNT_EXPIRE saw it unused, and nobody has been here since.
  std::weak_ptr<Mounts> mounts_;  // Null for anonymous ones.
};

using MountRef = std::shared_ptr<Mount>;

// The tree that a set of tasks sees. A detached tree (open_tree(2), fsmount(2)) has one of its
// own, which no task can enter.
class MountNamespace final : public Namespace {
 public:
  MountNamespace(std::shared_ptr<Mounts> mounts, UserNamespaceRef owner, bool detached);
  // Unmounts everything. Not under the lock of the Mounts.
  ~MountNamespace() override;

  bool is_detached_tree() const { return detached_; }
  // Order of making: a file that names a namespace is bound only in older ones, so that none keeps
  // itself alive.
  uint64_t sequence() const { return sequence_; }
  // Changes so far, for poll(2) of /proc/PID/mountinfo.
  uint64_t events() const { return events_.load(std::memory_order_acquire); }

 private:
  friend class Mounts;
  friend class MountPropagation;
  const std::shared_ptr<Mounts> mounts_owner_;
  const bool detached_;
  const uint64_t sequence_;
  std::atomic<uint64_t> events_{0};
  // Guarded by the lock of the Mounts.
  MountRef root_;
  std::map<uint64_t, MountRef> mounts_;  // By unique id: in order of making.
};

using MountNamespaceRef = std::shared_ptr<MountNamespace>;

}  // namespace sentry
