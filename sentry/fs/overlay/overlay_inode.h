#pragma once

// Inodes of the overlay. `lower` never changes; `upper` comes by copy-up and then holds the
// attributes (and for regular files, later, the content). Lock order: copy_mu_, the overlay's mu_,
// a directory's mu_. Under copy_mu_ the lower file system is called.

#include <atomic>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/fs/tmpfs/tmpfs_inode.h"
#include "sentry/vfs/inode.h"

namespace sentry {

// Also the whole of what symbolic links, device nodes, FIFOs and sockets need.
class OverlayInode : public Inode {
 public:
  // `number`: st_ino. One of `lower` and `upper` may be null.
  OverlayInode(Overlay& file_system, uint32_t type, uint64_t number, InodeRef lower,
               std::shared_ptr<TmpfsInode> upper);
  ~OverlayInode() override;

  uint32_t type() const override { return type_; }
  base::Result<Attributes> GetAttributes() override;
  base::Result<void> SetAttributes(const AttributeChanges& changes) override
      ABSL_LOCKS_EXCLUDED(copy_mu_);
  base::Result<std::string> ReadLink() override;
  const std::string* KnownTarget() const override;
  base::Result<std::string> GetXattr(std::string_view name) override;
  base::Result<void> SetXattr(std::string_view name, std::span<const std::byte> value,
                              int flags) override ABSL_LOCKS_EXCLUDED(copy_mu_);
  base::Result<void> RemoveXattr(std::string_view name) override ABSL_LOCKS_EXCLUDED(copy_mu_);
  base::Result<std::vector<std::string>> ListXattr() override;

  Overlay& overlay() const { return overlay_; }
  uint64_t number() const { return number_; }
  const InodeRef& lower() const { return lower_; }
  // The attributes live in memory from now on. ENOSPC; errors of the lower file system.
  base::Result<void> CopyUp() ABSL_LOCKS_EXCLUDED(copy_mu_);
  // Precondition: CopyUp() succeeded.
  TmpfsInode& upper() const { return *upper_.load(std::memory_order_acquire); }
  bool is_copied_up() const { return upper_.load(std::memory_order_acquire) != nullptr; }
  // A name of it went. Precondition: copied up.
  void DropName();
  std::shared_ptr<OverlayInode> self() {
    return std::static_pointer_cast<OverlayInode>(shared_from_this());
  }

 protected:
  // The upper inode of the right kind.
  virtual std::shared_ptr<TmpfsInode> MakeUpper(const CreateContext& context, uint64_t rdev);
  // Size, blocks and so on are still the lower's although the attributes are not.
  virtual bool ContentIsLower() const { return lower_ != nullptr; }
  base::Result<void> CopyUpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(copy_mu_);

  absl::Mutex copy_mu_;

 private:
  base::Result<void> CopyUpXattrs() ABSL_LOCKS_EXCLUDED(copy_mu_);
  bool XattrsAreUpper() const { return xattrs_copied_.load(std::memory_order_acquire); }

  Overlay& overlay_;
  const uint32_t type_;
  const uint64_t number_;
  const InodeRef lower_;
  std::shared_ptr<TmpfsInode> owned_upper_;  // Set once, before upper_.
  std::atomic<TmpfsInode*> upper_{nullptr};
  std::atomic<bool> xattrs_copied_;
};

class OverlayRegular final : public OverlayInode {
 public:
  OverlayRegular(Overlay& file_system, uint64_t number, InodeRef lower,
                 std::shared_ptr<TmpfsRegular> upper);

  base::Result<void> SetAttributes(const AttributeChanges& changes) override;
  base::Result<FileRef> Open(Task& task, const Path& path, uint32_t flags) override;
  base::Result<size_t> ReadContent(uint64_t offset, std::span<std::byte> out) override;

  bool has_own_content() const { return own_content_.load(std::memory_order_acquire); }
  // Precondition: has_own_content().
  std::shared_ptr<TmpfsRegular> upper_regular() const;

 protected:
  std::shared_ptr<TmpfsInode> MakeUpper(const CreateContext& context, uint64_t rdev) override;
  bool ContentIsLower() const override { return !has_own_content(); }

 private:
  // The content, up to `bytes_max` of it, is in memory from now on.
  base::Result<void> CopyUpContent(uint64_t bytes_max) ABSL_LOCKS_EXCLUDED(copy_mu_);
  std::atomic<bool> own_content_;
};

class OverlayDirectory final : public OverlayInode {
 public:
  OverlayDirectory(Overlay& file_system, uint64_t number, InodeRef lower,
                   std::shared_ptr<TmpfsInode> upper);

  base::Result<InodeRef> Lookup(std::string_view name) override ABSL_LOCKS_EXCLUDED(mu_);
  void WillWalk(std::string_view remaining, bool will_open) override ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<InodeRef> Create(std::string_view name, const CreateContext& context) override;
  base::Result<InodeRef> MakeDirectory(std::string_view name,
                                       const CreateContext& context) override;
  base::Result<InodeRef> MakeNode(std::string_view name, const CreateContext& context,
                                  uint32_t type, uint64_t rdev) override;
  base::Result<InodeRef> MakeSymlink(std::string_view name, std::string_view target,
                                     const CreateContext& context) override;
  base::Result<void> Link(std::string_view name, Inode& target) override;
  base::Result<void> Unlink(std::string_view name, Inode& child) override;
  base::Result<void> RemoveDirectory(std::string_view name, Inode& child) override;
  base::Result<void> Rename(std::string_view old_name, Inode& child, Inode& new_directory,
                            std::string_view new_name, Inode* replaced, uint32_t flags) override;
  base::Result<InodeRef> CreateUnnamed(const CreateContext& context) override;
  base::Result<FileRef> Open(Task& task, const Path& path, uint32_t flags) override;
  // Changed names first, then the lower directory's.
  base::Result<void> ReadEntries(uint64_t* offset, const DirectorySink& sink) override
      ABSL_LOCKS_EXCLUDED(mu_);

  uint64_t parent_number() const { return parent_number_.load(std::memory_order_relaxed); }
  void set_parent_number(uint64_t number) {
    parent_number_.store(number, std::memory_order_relaxed);
  }
  // For the end of the file system: directories that were below this one, without recursion.
  void TakeDirectories(std::vector<std::shared_ptr<OverlayInode>>* directories)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // A name about which this directory differs from the lower one. No inode: it is not there (a
  // whiteout).
  struct Entry {
    std::string name;
    std::shared_ptr<OverlayInode> inode;
    uint64_t cookie = 0;
    bool hides_lower = false;
  };

  base::Result<InodeRef> Insert(std::string_view name, std::shared_ptr<OverlayInode> inode);
  // `name` is `inode` from now on. `lower_has_it`: the lower directory has that name too, if
  // nothing is known of it here.
  void Put(std::string_view name, std::shared_ptr<OverlayInode> inode, bool lower_has_it)
      ABSL_LOCKS_EXCLUDED(mu_);
  // `name`, which exists, is gone.
  void Take(std::string_view name) ABSL_LOCKS_EXCLUDED(mu_);
  bool IsChanged(std::string_view name) const ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<bool> IsEmpty() ABSL_LOCKS_EXCLUDED(mu_);
  void CountSubdirectory(int change);
  base::Result<void> Exchange(std::string_view old_name, OverlayInode& mine,
                              OverlayDirectory& other, std::string_view new_name,
                              OverlayInode& theirs);

  mutable absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::unique_ptr<Entry>> changed_ ABSL_GUARDED_BY(mu_);
  absl::btree_map<uint64_t, Entry*> by_cookie_ ABSL_GUARDED_BY(mu_);  // Those that exist.
  uint64_t next_cookie_ ABSL_GUARDED_BY(mu_) = 2;
  std::atomic<uint64_t> parent_number_;
};

}  // namespace sentry
