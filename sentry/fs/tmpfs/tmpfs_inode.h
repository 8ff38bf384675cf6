#pragma once

// The inodes of tmpfs. Each has one lock, mu_, for its attributes and content; directories' names
// are further serialised by the vfs. Lock order: a file's write lock, a memory manager's lock
// (inside IoBuffer), mu_. Under mu_ nothing but the pool is called.

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/mm/mappable.h"
#include "sentry/mm/mapping_registry.h"
#include "sentry/vfs/inode.h"

namespace sentry {

class TmpfsInode : public Inode {
 public:
  TmpfsInode(Tmpfs& file_system, uint32_t type, const CreateContext& context);
  ~TmpfsInode() override;

  uint32_t type() const override { return type_; }
  base::Result<Attributes> GetAttributes() override ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> SetAttributes(const AttributeChanges& changes) override
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> CheckPermission(const Credentials& credentials, int mask) override
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<std::string> GetXattr(std::string_view name) override ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> SetXattr(std::string_view name, std::span<const std::byte> value,
                              int flags) override ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> RemoveXattr(std::string_view name) override ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<std::vector<std::string>> ListXattr() override ABSL_LOCKS_EXCLUDED(mu_);

  Tmpfs& tmpfs() const { return tmpfs_; }
  uint64_t number() const { return number_; }
  // Reading through `file` touches the access time if its mount wants that.
  void TouchAccess(const File& file) ABSL_LOCKS_EXCLUDED(mu_);
  // Takes over what another file system says of its file, except for size and identity.
  void CopyAttributes(const Attributes& attributes) ABSL_LOCKS_EXCLUDED(mu_);
  // A subdirectory came or went.
  void CountSubdirectory(int change) ABSL_LOCKS_EXCLUDED(mu_);
  // Names changed: mtime, ctime.
  void Touch() ABSL_LOCKS_EXCLUDED(mu_);
  // Names of it: ENOENT for one more if there is none (unless it never had one), EMLINK.
  base::Result<void> AddLink() ABSL_LOCKS_EXCLUDED(mu_);
  void DropLink() ABSL_LOCKS_EXCLUDED(mu_);
  // It never had a name, and may get one (O_TMPFILE).
  void MakeUnnamed() ABSL_LOCKS_EXCLUDED(mu_);

 protected:
  // The type's part of the attributes.
  virtual void FillSize(Attributes* attributes) const ABSL_SHARED_LOCKS_REQUIRED(mu_) = 0;
  virtual base::Result<void> Resize(uint64_t size) ABSL_LOCKS_EXCLUDED(mu_);

  mutable absl::Mutex mu_;
  uint32_t mode_ ABSL_GUARDED_BY(mu_);  // Permission bits.
  uint32_t uid_ ABSL_GUARDED_BY(mu_);
  uint32_t gid_ ABSL_GUARDED_BY(mu_);
  uint32_t nlink_ ABSL_GUARDED_BY(mu_) = 1;
  bool was_never_named_ ABSL_GUARDED_BY(mu_) = false;
  Timestamp atime_ ABSL_GUARDED_BY(mu_);
  Timestamp mtime_ ABSL_GUARDED_BY(mu_);
  Timestamp ctime_ ABSL_GUARDED_BY(mu_);
  const Timestamp btime_;

 private:
  Tmpfs& tmpfs_;
  const uint32_t type_;
  const uint64_t number_;
  std::map<std::string, std::string, std::less<>> xattrs_ ABSL_GUARDED_BY(mu_);
  size_t xattr_bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

// FIFOs, sockets, device nodes.
class TmpfsNode final : public TmpfsInode {
 public:
  TmpfsNode(Tmpfs& file_system, uint32_t type, const CreateContext& context, uint64_t rdev)
      : TmpfsInode(file_system, type, context), rdev_(rdev) {}

 protected:
  void FillSize(Attributes* attributes) const override { attributes->rdev = rdev_; }

 private:
  const uint64_t rdev_;
};

class TmpfsSymlink final : public TmpfsInode {
 public:
  TmpfsSymlink(Tmpfs& file_system, const CreateContext& context, std::string_view target)
      : TmpfsInode(file_system, S_IFLNK, context), target_(target) {}
  base::Result<std::string> ReadLink() override { return target_; }
  const std::string* KnownTarget() const override { return &target_; }

 protected:
  void FillSize(Attributes* attributes) const override { attributes->size = target_.size(); }

 private:
  const std::string target_;
};

class TmpfsDirectory final : public TmpfsInode {
 public:
  TmpfsDirectory(Tmpfs& file_system, const CreateContext& context);

  base::Result<InodeRef> Lookup(std::string_view name) override ABSL_LOCKS_EXCLUDED(mu_);
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

  // Positions are cookies, which never change and are never reused.
  base::Result<void> ReadEntries(uint64_t* offset, const DirectorySink& sink) override
      ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t parent_number() const { return parent_number_.load(std::memory_order_relaxed); }
  bool IsEmpty() const ABSL_LOCKS_EXCLUDED(mu_);
  // For the end of the file system: the directories in this one, without recursion.
  void TakeDirectories(std::vector<std::shared_ptr<TmpfsInode>>* directories)
      ABSL_LOCKS_EXCLUDED(mu_);
  void set_parent_number(uint64_t number) {
    parent_number_.store(number, std::memory_order_relaxed);
  }

 protected:
  void FillSize(Attributes* attributes) const override ABSL_SHARED_LOCKS_REQUIRED(mu_);

 private:
  struct Entry {
    std::string name;
    std::shared_ptr<TmpfsInode> inode;
    uint64_t cookie = 0;
  };
  base::Result<InodeRef> Insert(std::string_view name, std::shared_ptr<TmpfsInode> inode);
  void Put(std::string_view name, std::shared_ptr<TmpfsInode> inode) ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<TmpfsInode> Take(std::string_view name) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Exchange(std::string_view old_name, TmpfsDirectory& other,
                              std::string_view new_name);

  absl::flat_hash_map<std::string, Entry*> by_name_ ABSL_GUARDED_BY(mu_);
  absl::btree_map<uint64_t, std::unique_ptr<Entry>> by_cookie_ ABSL_GUARDED_BY(mu_);
  uint64_t next_cookie_ ABSL_GUARDED_BY(mu_) = 2;
  std::atomic<uint64_t> parent_number_;
};

class TmpfsRegular final : public TmpfsInode, public Mappable {
 public:
  TmpfsRegular(Tmpfs& file_system, const CreateContext& context);
  ~TmpfsRegular() override;

  base::Result<FileRef> Open(Task& task, const Path& path, uint32_t flags) override;

  // --- Data of open files.
  base::Result<size_t> ReadInto(IoBuffer& to, uint64_t offset) ABSL_LOCKS_EXCLUDED(mu_);
  // `append`: at the end, and *offset says where that was. *offset advances.
  base::Result<size_t> WriteFrom(IoBuffer& from, uint64_t* offset, bool append)
      ABSL_LOCKS_EXCLUDED(write_mu_, mu_);
  base::Result<uint64_t> SeekData(uint64_t offset, bool hole) const ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Allocate(int mode, uint64_t offset, uint64_t length)
      ABSL_LOCKS_EXCLUDED(write_mu_, mu_);
  base::Result<void> Resize(uint64_t size) override ABSL_LOCKS_EXCLUDED(write_mu_, mu_);
  uint64_t size() const ABSL_LOCKS_EXCLUDED(mu_);
  // A writer has closed it.
  void OnWriterClosed() ABSL_LOCKS_EXCLUDED(mu_);

  // --- Seals (fcntl(2)).
  uint32_t seals() const ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> AddSeals(uint32_t seals) ABSL_LOCKS_EXCLUDED(write_mu_, mu_);
  void InitSeals(uint32_t seals) ABSL_LOCKS_EXCLUDED(mu_);

  // --- Mappable.
  base::Result<HostRange> Translate(uint64_t offset, uint64_t length, bool for_write) override
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<size_t> ReadContent(uint64_t offset, std::span<std::byte> out) override {
    return ReadAt(offset, out);
  }
  base::Result<size_t> WriteAt(uint64_t offset, std::span<const std::byte> data) override
      ABSL_LOCKS_EXCLUDED(mu_);
  void AddMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                  bool shared_writable) override;
  void RemoveMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                     bool shared_writable) override;
  base::Result<void> Sync(uint64_t, uint64_t) override { return {}; }
  base::Result<void> PunchHole(uint64_t offset, uint64_t length) override;
  Identity identity() const override { return {tmpfs().device(), number()}; }

 protected:
  void FillSize(Attributes* attributes) const override ABSL_SHARED_LOCKS_REQUIRED(mu_);

 private:
  // Pages [first, end) go, after every mapping of them has gone.
  void DiscardPages(uint64_t first_page, uint64_t end_page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> PunchHoleLocked(uint64_t offset, uint64_t length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mu_) ABSL_LOCKS_EXCLUDED(mu_);

  absl::Mutex write_mu_
      ABSL_ACQUIRED_BEFORE(mu_);  // One writer at a time, around copies from guest memory.
  PageStore content_ ABSL_GUARDED_BY(mu_);
  uint64_t size_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t seals_ ABSL_GUARDED_BY(mu_);
  uint64_t fault_pages_ ABSL_GUARDED_BY(mu_);  // How many pages the next fault in a hole makes.
  uint64_t next_fault_page_ ABSL_GUARDED_BY(mu_) = 0;
  MappingRegistry mappings_;
};

// An open tmpfs directory.
class TmpfsDirectoryFile final : public File {
 public:
  using File::File;
  bool seekable() const override { return true; }
  base::Result<uint64_t> Seek(Task& task, uint64_t position, int64_t offset, int whence) override;
  base::Result<void> ReadDirectory(Task& task, uint64_t* offset,
                                   const DirectorySink& sink) override;
  base::Result<void> Sync(bool) override { return {}; }
};

// An open tmpfs file.
class TmpfsFile final : public File {
 public:
  // `path` may show another file system's inode on top of `regular`.
  TmpfsFile(Path path, uint32_t flags, CredentialsRef credentials,
            std::shared_ptr<TmpfsRegular> regular)
      : File(std::move(path), flags, std::move(credentials)), regular_(std::move(regular)) {}
  bool seekable() const override { return true; }
  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;
  base::Result<size_t> Write(Task& task, IoBuffer& from, uint64_t* offset) override;
  base::Result<uint64_t> Seek(Task& task, uint64_t position, int64_t offset, int whence) override;
  base::Result<void> Sync(bool) override { return {}; }
  base::Result<void> Allocate(int mode, uint64_t offset, uint64_t length) override;
  base::Result<void> Truncate(uint64_t size) override;
  base::Result<uint64_t> Fcntl(Task& task, int command, uint64_t argument) override;
  base::Result<void> ConfigureMmap(MmapRequest& request) override;
  base::Result<void> OnClose(Task& task) override;

 private:
  const std::shared_ptr<TmpfsRegular> regular_;
};

}  // namespace sentry
