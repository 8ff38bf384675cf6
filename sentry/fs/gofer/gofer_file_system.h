#pragma once

// A tree of the host, served by the gofer (gofer/README.md): the container's root and its volumes.
//
// Names and attributes come in messages; file content is read, written and mapped through
// descriptors that the gofer donates, without it. README.md says what is cached in which mode and
// how much of it.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "gofer/protocol/client.h"
#include "sentry/vfs/file_system.h"

namespace sentry {

class GoferDirectory;
class GoferInode;

struct GoferOptions {
  std::string attach_name;
  // Only this sandbox changes the tree (--file-access=exclusive): what was learned once stays true.
  // Otherwise names and attributes are asked for again at each use.
  bool exclusive = true;
  bool read_only = false;
  // Files that keep a fid or donated descriptors at the same time, those in use not counted. Each
  // may take two descriptors here and two in the gofer. 0: what the limit of open files allows.
  size_t files_held_max = 0;
};

class GoferFileSystem final : public FileSystem {
 public:
  // Attaches. Errors are the gofer's: ENOENT for an unknown name, EIO if it has gone.
  static base::Result<std::shared_ptr<GoferFileSystem>> Create(
      std::shared_ptr<gofer::Client> client, const GoferOptions& options);
  ~GoferFileSystem() override;

  std::string_view type_name() const override { return "gofer"; }
  InodeRef root() override;
  base::Result<FileSystemStatus> Status() override;
  uint64_t device() const override { return device_; }
  bool read_only() const override { return options_.read_only || FileSystem::read_only(); }
  bool CachesDentries() const override { return options_.exclusive; }
  bool Revalidate(Inode& directory, std::string_view name, Inode& child) override;
  base::Result<void> Sync() override;

  // ---- For the inodes.
  // Identity on the host: device and inode number.
  using HostId = std::pair<uint64_t, uint64_t>;

  gofer::Client& client() { return *client_; }
  bool exclusive() const { return options_.exclusive; }
  // Guards where inodes are in the tree. Taken before any inode's locks.
  absl::Mutex& tree_mutex() ABSL_LOCK_RETURNED(tree_mu_) { return tree_mu_; }

  // The inode for what a walk has found as `name` in `parent`; `made` says whether it is new.
  struct Found {
    std::shared_ptr<GoferInode> inode;
    bool made = false;
  };
  Found GetOrMake(const gofer::Attributes& attributes, std::shared_ptr<GoferDirectory> parent,
                  std::string_view name, std::string link_target) ABSL_LOCKS_EXCLUDED(table_mu_);
  // Its last name has gone: its number on the host may belong to another file soon.
  void Drop(HostId id, const GoferInode* inode) ABSL_LOCKS_EXCLUDED(table_mu_);
  // The inode of that identity has been destroyed.
  void DropExpired(HostId id) ABSL_LOCKS_EXCLUDED(table_mu_);
  bool IsAlive(HostId id) const ABSL_LOCKS_EXCLUDED(table_mu_);
  // st_ino for a number of the host.
  uint64_t InodeNumber(uint64_t host_device, uint64_t host_inode) ABSL_LOCKS_EXCLUDED(table_mu_);

  // `inode` holds a fid or descriptors now; others may have to give up theirs.
  void Track(const std::shared_ptr<GoferInode>& inode) ABSL_LOCKS_EXCLUDED(held_mu_);
  // Either side has run out of descriptors: half of what can be given up is. False if nothing
  // could.
  bool MakeRoom() ABSL_LOCKS_EXCLUDED(held_mu_);
  size_t files_held() const ABSL_LOCKS_EXCLUDED(held_mu_);

  // What WillWalk has learned ahead of the look-ups: a few, in order, each used once. Null `child`:
  // not there.
  void Prefetched(std::shared_ptr<GoferDirectory> directory, uint64_t generation,
                  std::string_view name, std::shared_ptr<GoferInode> child)
      ABSL_LOCKS_EXCLUDED(prefetch_mu_);
  // Nothing, or what was found (null for "not there").
  std::optional<std::shared_ptr<GoferInode>> TakePrefetched(const GoferDirectory& directory,
                                                            uint64_t generation,
                                                            std::string_view name)
      ABSL_LOCKS_EXCLUDED(prefetch_mu_);

  // Entries of cached listings, over all directories. False if `count` more would be too many.
  bool ReserveListed(size_t count);
  void ReleaseListed(size_t count) { listed_.fetch_sub(count, std::memory_order_relaxed); }

 private:
  struct Prefetch {
    std::shared_ptr<GoferDirectory> directory;
    uint64_t generation = 0;
    std::string name;
    std::shared_ptr<GoferInode> child;
  };

  GoferFileSystem(std::shared_ptr<gofer::Client> client, const GoferOptions& options);
  std::shared_ptr<GoferInode> Make(const gofer::Attributes& attributes, std::string link_target);
  // Looks at up to `looks` held files and takes from at most `count` what they hold.
  size_t Evict(size_t count, size_t looks) ABSL_LOCKS_EXCLUDED(held_mu_);

  const std::shared_ptr<gofer::Client> client_;
  const GoferOptions options_;
  const uint64_t device_;
  std::shared_ptr<GoferInode> root_;
  std::atomic<size_t> listed_ = 0;

  absl::Mutex tree_mu_;

  mutable absl::Mutex table_mu_ ABSL_ACQUIRED_AFTER(tree_mu_);
  absl::flat_hash_map<HostId, std::weak_ptr<GoferInode>> inodes_ ABSL_GUARDED_BY(table_mu_);
  // Host devices in the order they were met; the first is the root's.
  std::vector<uint64_t> host_devices_ ABSL_GUARDED_BY(table_mu_);

  mutable absl::Mutex held_mu_;
  std::deque<std::weak_ptr<GoferInode>> held_ ABSL_GUARDED_BY(held_mu_);

  absl::Mutex prefetch_mu_;
  std::deque<Prefetch> prefetched_ ABSL_GUARDED_BY(prefetch_mu_);
};

}  // namespace sentry
