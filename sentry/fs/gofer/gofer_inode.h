#pragma once

// The inodes of a gofer file system. An inode knows what it is (host device and number, type),
// where it is (a parent and a name, until it is unlinked), what was last heard of its attributes,
// and perhaps a fid: a handle in the gofer that outlives renames and unlinks. Without one, it can
// be bound again by its place.
//
// Lock order: tree_mutex of the file system, open_mu_, fid_mu_, mu_. A gofer call is made under
// open_mu_ only.

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "gofer/protocol/client.h"
#include "platform/base/fd.h"
#include "sentry/fs/gofer/directory_listing.h"
#include "sentry/fs/gofer/gofer_file_system.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/mm/mappable.h"
#include "sentry/mm/mapping_registry.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"

namespace sentry {

class GoferInode;

// Keeps a fid from being given back while it is in use.
class FidPin {
 public:
  FidPin() = default;
  FidPin(std::shared_ptr<GoferInode> inode, gofer::Fid fid) : inode_(std::move(inode)), fid_(fid) {}
  FidPin(FidPin&& other) noexcept = default;
  FidPin& operator=(FidPin&& other) noexcept = default;
  ~FidPin();
  explicit operator bool() const { return inode_ != nullptr; }
  gofer::Fid fid() const { return fid_; }

 private:
  std::shared_ptr<GoferInode> inode_;
  gofer::Fid fid_ = gofer::kNoFid;
};

class GoferInode : public Inode {
 public:
  GoferInode(GoferFileSystem& file_system, const gofer::Attributes& attributes);
  ~GoferInode() override;

  uint32_t type() const override { return type_; }
  base::Result<Attributes> GetAttributes() override ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> SetAttributes(const AttributeChanges& changes) override
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> CheckPermission(const Credentials& credentials, int mask) override
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<std::string> GetXattr(std::string_view name) override;
  base::Result<void> SetXattr(std::string_view name, std::span<const std::byte> value,
                              int flags) override;
  base::Result<void> RemoveXattr(std::string_view name) override;
  base::Result<std::vector<std::string>> ListXattr() override;

  GoferFileSystem& gofer() const { return gofer_; }
  GoferFileSystem::HostId host_id() const { return host_id_; }
  uint64_t number() const { return number_; }
  std::shared_ptr<GoferInode> self();

  // ---- What the gofer says.
  // Answers may overtake each other. One that tells of a change is newer than all that came before
  // it; one that only tells what is (to a question asked at `asked`) is older than what came after
  // the question.
  uint64_t Asking() { return clock_.fetch_add(1, std::memory_order_relaxed) + 1; }
  void Update(const gofer::Attributes& attributes, uint64_t asked) ABSL_LOCKS_EXCLUDED(mu_);
  void Update(const gofer::Attributes& attributes) { Update(attributes, Asking()); }
  // What is cached is behind: the next GetAttributes asks.
  void MarkStale() { stale_.store(true, std::memory_order_release); }
  // As last heard, without asking.
  Attributes CachedAttributes() const ABSL_LOCKS_EXCLUDED(mu_);
  bool Is(const gofer::Attributes& attributes) const {
    return host_id_ == GoferFileSystem::HostId{attributes.dev, attributes.ino} &&
           type_ == (attributes.mode & S_IFMT);
  }

  // ---- Fids.
  // ESTALE if the file is no longer where it was, or was unlinked without having been bound.
  base::Result<FidPin> Pin() ABSL_LOCKS_EXCLUDED(fid_mu_);
  // Empty if not bound.
  FidPin PinIfBound() ABSL_LOCKS_EXCLUDED(fid_mu_);
  // Takes `fid`, bound to this file by the gofer, unless there is one already: then it goes back.
  void Adopt(gofer::Fid fid) ABSL_LOCKS_EXCLUDED(fid_mu_);
  // Gives up fid and descriptors if nobody needs them and they can be had again. Tells whether it
  // did; a file used since the last time gets another chance.
  bool TryEvict() ABSL_LOCKS_EXCLUDED(fid_mu_);

  // ---- Place in the tree; tree_mutex of the file system guards it.
  const std::shared_ptr<GoferDirectory>& parent() const { return parent_; }
  const std::string& name() const { return name_; }
  void set_place(std::shared_ptr<GoferDirectory> parent, std::string_view name);
  // The name is gone. Its place too, if this was it.
  void Unlinked(const GoferDirectory& parent, std::string_view name);
  // Before its name goes: a file with other names, or in use, must be reachable without.
  base::Result<void> PrepareUnlink();
  // For a name that just changed: ctime, nlink.
  void CountLink(int change) ABSL_LOCKS_EXCLUDED(mu_);

 protected:
  friend class FidPin;
  // Attributes without a message, if there is a way.
  virtual std::optional<gofer::Attributes> LocalAttributes() { return std::nullopt; }
  virtual bool IsAlwaysStale() const { return false; }
  // Changes the size without a message, if there is a way.
  virtual std::optional<base::Result<void>> LocalSetSize(uint64_t) { return std::nullopt; }
  virtual void SizeChanged(uint64_t old_size, uint64_t new_size) { (void)old_size, (void)new_size; }
  virtual bool InUse() const { return false; }
  // Closes descriptors, unless somebody uses them: then false.
  virtual bool ReleaseHostFiles() { return true; }
  void MarkHeld();
  // A read through a donated descriptor may have moved the access time.
  void MarkRead() {
    if (read_moves_atime_.load(std::memory_order_relaxed)) MarkStale();
  }
  // Binds, and opens the file in the same message if `open_flags`: *opened is the descriptor, or
  // the error.
  base::Result<FidPin> Bind(std::optional<uint32_t> open_flags = {},
                            base::Result<base::Fd>* opened = nullptr) ABSL_LOCKS_EXCLUDED(fid_mu_);

  // Adopt; what is kept stays for as long as the pin.
  FidPin AdoptAndPin(gofer::Fid fid) ABSL_LOCKS_EXCLUDED(fid_mu_);

  const GoferFileSystem::HostId host_id_;

 private:
  void Unpin() ABSL_LOCKS_EXCLUDED(fid_mu_);
  base::Result<void> Refresh() ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<FidPin> BindOnce(std::optional<uint32_t> open_flags, base::Result<base::Fd>* opened)
      ABSL_LOCKS_EXCLUDED(fid_mu_);
  GoferFileSystem& gofer_;
  const uint32_t type_;
  const uint64_t number_;

  std::atomic<uint64_t> clock_{0};
  std::atomic<bool> stale_{false};
  std::atomic<bool> read_moves_atime_{false};
  std::atomic<bool> held_{false};       // Known to the file system's list.
  std::atomic<bool> referenced_{true};  // Used since eviction looked last.
  std::atomic<bool> has_no_xattrs_{false};

  std::shared_ptr<GoferDirectory> parent_;  // Null for the root and for what was unlinked.
  std::string name_;

  absl::Mutex fid_mu_;
  gofer::Fid fid_ ABSL_GUARDED_BY(fid_mu_) = gofer::kNoFid;
  uint32_t pins_ ABSL_GUARDED_BY(fid_mu_) = 0;
  bool is_placed_ ABSL_GUARDED_BY(fid_mu_) = false;  // Has a parent: can be bound again.

  mutable absl::Mutex mu_ ABSL_ACQUIRED_AFTER(fid_mu_);
  Attributes attributes_ ABSL_GUARDED_BY(mu_);
  uint64_t updated_ ABSL_GUARDED_BY(mu_) = 0;  // `asked` of the last Update.
};

class GoferSymlink final : public GoferInode {
 public:
  GoferSymlink(GoferFileSystem& file_system, const gofer::Attributes& attributes,
               std::string target)
      : GoferInode(file_system, attributes) {
    SetTarget(std::move(target));
  }
  base::Result<std::string> ReadLink() override;
  const std::string* KnownTarget() const override {
    return known_target_.load(std::memory_order_acquire);
  }

 private:
  void SetTarget(std::string target) ABSL_LOCKS_EXCLUDED(target_mu_);

  // A link never changes its target: set once, when it is not empty.
  absl::Mutex target_mu_;
  std::string target_ ABSL_GUARDED_BY(target_mu_);
  std::atomic<const std::string*> known_target_{nullptr};
};

class GoferDirectory final : public GoferInode {
 public:
  using GoferInode::GoferInode;
  ~GoferDirectory() override;

  base::Result<InodeRef> Lookup(std::string_view name) override;
  void WillWalk(std::string_view remaining, bool will_open) override;
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
  base::Result<FileRef> Open(Task& task, const Path& path, uint32_t flags) override;
  base::Result<void> ReadEntries(uint64_t* offset, const DirectorySink& sink) override;

  // One message, whether or not this directory is bound: walks `names` from here. `keep` says which
  // of the steps are to be bound; `fids` has one entry per step, kNoFid if it was not.
  enum class Keep : uint8_t { kNone, kAllButLast, kLast, kAll };
  struct Below {
    gofer::WalkReply reply;
    std::vector<gofer::Fid> fids;
    base::Fd fd;
  };
  base::Result<Below> WalkBelow(std::span<const std::string_view> names, Keep keep,
                                std::optional<uint32_t> open_flags = {});
  // The names in it, whole: the cached ones in exclusive mode.
  base::Result<std::shared_ptr<DirectoryListing>> List();
  // For "..".
  uint64_t ParentNumber();
  // There is an inode for `name` now, which knows better than what was listed.
  void InodeMade(std::string_view name) ABSL_LOCKS_EXCLUDED(listing_mu_);

 private:
  // A change of names is under way: what was read before or during it is not to be kept.
  class Changing;
  // The way here from something that is bound.
  struct Prefix {
    FidPin ancestor;
    std::vector<std::string> names;
  };

  base::Result<Prefix> PathToHere(size_t names_max);
  base::Result<Below> WalkBelowOnce(std::span<const std::string_view> names, Keep keep,
                                    std::optional<uint32_t> open_flags);
  std::shared_ptr<GoferDirectory> here();
  std::shared_ptr<DirectoryListing> CachedListing() ABSL_LOCKS_EXCLUDED(listing_mu_);
  base::Result<std::shared_ptr<DirectoryListing>> Fetch();
  base::Result<gofer::DirReply> FetchFirst(FidPin* pin);
  // Caches it, unless names have changed since `generation`.
  void KeepListing(std::shared_ptr<DirectoryListing> listing, uint64_t generation,
                   uint64_t inodes_made) ABSL_LOCKS_EXCLUDED(listing_mu_);
  // Calls `make(dir_fid, new_fid)` and gives what it made an inode.
  template <typename Make>
  base::Result<std::shared_ptr<GoferInode>> MakeEntry(std::string_view name, bool bind, Make make,
                                                      base::Fd* opened = nullptr);
  base::Result<void> Remove(std::string_view name, GoferInode& child, uint32_t flags);
  void UpdateOrMark(const gofer::Attributes& attributes);
  void NameAdded(std::string_view name, const GoferInode& inode);
  void NameRemoved(std::string_view name);

  std::atomic<uint64_t> generation_{0};   // Counts changes of names.
  std::atomic<uint64_t> inodes_made_{0};  // Counts calls of InodeMade.
  absl::Mutex listing_mu_;
  std::shared_ptr<DirectoryListing> listing_ ABSL_GUARDED_BY(listing_mu_);
  size_t listing_reserved_ ABSL_GUARDED_BY(listing_mu_) = 0;
};

class GoferRegular final : public GoferInode, public Mappable {
 public:
  using GoferInode::GoferInode;
  ~GoferRegular() override;

  base::Result<FileRef> Open(Task& task, const Path& path, uint32_t flags) override;
  base::Result<size_t> ReadContent(uint64_t offset, std::span<std::byte> out) override;

  // ---- For open files.
  // Makes sure that there is a donated descriptor, and that it stays until CloseHost.
  base::Result<void> OpenHost(bool write) ABSL_LOCKS_EXCLUDED(open_mu_);
  void CloseHost() { open_files_.fetch_sub(1, std::memory_order_acq_rel); }
  // Takes the descriptor (O_RDWR) of a file that was just created.
  void AdoptHostFile(base::Fd fd) ABSL_LOCKS_EXCLUDED(open_mu_);
  // Takes a descriptor (O_RDONLY) for opens to come.
  void AdoptReadOnlyHostFile(base::Fd fd) ABSL_LOCKS_EXCLUDED(open_mu_);

  // Preconditions: between OpenHost(write) and CloseHost().
  base::Result<size_t> ReadInto(IoBuffer& to, uint64_t offset);
  // `flags`: open(2)'s. *offset is where it begins (or, with O_APPEND, is set) and advances.
  base::Result<size_t> WriteFrom(IoBuffer& from, uint64_t* offset, uint32_t flags);
  base::Result<uint64_t> SeekData(uint64_t offset, bool hole);
  base::Result<void> SyncHost(bool data_only);
  base::Result<void> Allocate(int mode, uint64_t offset, uint64_t length);
  base::Result<void> Truncate(uint64_t size);

  // ---- Mappable.
  base::Result<HostRange> Translate(uint64_t offset, uint64_t length, bool for_write) override;
  base::Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override;
  base::Result<size_t> WriteAt(uint64_t offset, std::span<const std::byte> data) override;
  void AddMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                  bool shared_writable) override;
  bool MayShowPool() const override { return false; }
  void RemoveMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                     bool shared_writable) override;
  base::Result<void> Sync(uint64_t offset, uint64_t length) override;
  Identity identity() const override { return {gofer().device(), number()}; }

 protected:
  std::optional<gofer::Attributes> LocalAttributes() override;
  bool IsAlwaysStale() const override { return mappings_.HasWritableMappings(); }
  std::optional<base::Result<void>> LocalSetSize(uint64_t size) override;
  void SizeChanged(uint64_t old_size, uint64_t new_size) override;
  bool InUse() const override;
  bool ReleaseHostFiles() override;

 private:
  base::Result<base::Fd> Donation(uint32_t flags);
  // -1 if there is none.
  int read_fd() const;
  int write_fd() const { return write_fd_.load(std::memory_order_acquire); }

  absl::Mutex open_mu_;  // One message per donation.
  absl::Mutex append_mu_;
  // Set under open_mu_, from -1 to a descriptor; back to -1 only while nobody uses the file.
  std::atomic<int> read_fd_{-1};
  std::atomic<int> write_fd_{-1};
  std::atomic<bool> write_fd_reads_{
      true};  // False where the gofer may write the file but not read it.
  std::atomic<int> open_files_{0};
  MappingRegistry mappings_;
};

// ---- Open files.

class GoferFile final : public File {
 public:
  // Precondition: regular->OpenHost(...) succeeded; this file gives it back.
  GoferFile(Path path, uint32_t flags, CredentialsRef credentials,
            std::shared_ptr<GoferRegular> regular)
      : File(std::move(path), flags, std::move(credentials)), regular_(std::move(regular)) {}
  ~GoferFile() override { regular_->CloseHost(); }

  bool seekable() const override { return true; }
  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;
  base::Result<size_t> Write(Task& task, IoBuffer& from, uint64_t* offset) override;
  base::Result<uint64_t> Seek(Task& task, uint64_t position, int64_t offset, int whence) override;
  base::Result<void> Sync(bool data_only) override { return regular_->SyncHost(data_only); }
  base::Result<void> Allocate(int mode, uint64_t offset, uint64_t length) override;
  base::Result<void> Truncate(uint64_t size) override { return regular_->Truncate(size); }
  base::Result<void> ConfigureMmap(MmapRequest& request) override;

 private:
  const std::shared_ptr<GoferRegular> regular_;
};

class GoferDirectoryFile final : public File {
 public:
  GoferDirectoryFile(Path path, uint32_t flags, CredentialsRef credentials,
                     std::shared_ptr<GoferDirectory> directory)
      : File(std::move(path), flags, std::move(credentials)), directory_(std::move(directory)) {}

  bool seekable() const override { return true; }
  base::Result<uint64_t> Seek(Task& task, uint64_t position, int64_t offset, int whence) override;
  base::Result<void> ReadDirectory(Task& task, uint64_t* offset,
                                   const DirectorySink& sink) override;
  base::Result<void> Sync(bool data_only) override;

 private:
  const std::shared_ptr<GoferDirectory> directory_;
  // What this description is reading; begun anew at offset 0.
  absl::Mutex mu_;
  std::shared_ptr<DirectoryListing> listing_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
