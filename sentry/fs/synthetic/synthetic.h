#pragma once

// Files that the kernel makes up: proc, sys, devpts and the inodes of host descriptors are trees of
// objects whose content is computed when it is read. Here are the parts they have in common, so
// that each such file costs its author a function.
//
// Content is generated when a read begins at offset 0 and kept for the reads that follow, so a
// program that reads in small pieces sees one consistent text (Linux's seq_file gives the same per
// record only).

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/time/clock.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/file_system.h"
#include "sentry/vfs/inode.h"

namespace sentry {

class SyntheticFileSystem : public FileSystem {
 public:
  struct Traits {
    std::string_view type_name;  // A literal.
    uint64_t magic = 0;
    bool caches_dentries = true;
    std::string options = {};
    bool is_kernel_view = false;
  };
  // `clock` outlives the file system; times of all inodes are that of its making.
  SyntheticFileSystem(const Traits& traits, const Clock& clock);

  std::string_view type_name() const override { return traits_.type_name; }
  InodeRef root() override { return root_; }
  base::Result<FileSystemStatus> Status() override;
  uint64_t device() const override { return device_; }
  bool CachesDentries() const override { return traits_.caches_dentries; }
  bool CachesNegatives() const override { return false; }
  std::string options() const override { return traits_.options; }
  bool IsKernelView() const override { return traits_.is_kernel_view; }

  // Once, before the file system is mounted.
  void SetRoot(InodeRef root) { root_ = std::move(root); }
  uint64_t AllocateInode() { return next_inode_.fetch_add(1, std::memory_order_relaxed); }
  Timestamp made() const { return made_; }

 private:
  const Traits traits_;
  const uint64_t device_;
  const Timestamp made_;
  std::atomic<uint64_t> next_inode_{1};
  InodeRef root_;
};

class SyntheticInode : public Inode {
 public:
  struct Owner {
    uint32_t uid = 0;
    uint32_t gid = 0;
  };
  // `number` 0: the next free one.
  SyntheticInode(SyntheticFileSystem& file_system, uint32_t mode, uint64_t number = 0);

  uint32_t type() const override { return mode_ & S_IFMT; }
  base::Result<Attributes> GetAttributes() override;
  // Sizes may be "changed" (O_TRUNC on a control file); all else is EPERM.
  base::Result<void> SetAttributes(const AttributeChanges& changes) override;
  virtual Owner owner() const { return {}; }
  uint64_t number() const { return number_; }

 protected:
  SyntheticFileSystem& synthetic() const { return synthetic_; }

 private:
  SyntheticFileSystem& synthetic_;
  const uint32_t mode_;
  const uint64_t number_;
};

// A directory whose entries are listed by its class.
class SyntheticDirectory : public SyntheticInode {
 public:
  struct Entry {
    std::string name;
    uint64_t inode = 0;
    uint8_t type = 0;       // DT_*
    uint64_t position = 0;  // >= kFirstPosition, ascending: where a listing resumes.
  };
  static constexpr uint64_t kFirstPosition = 2;  // 0 and 1 are "." and "..".
  SyntheticDirectory(SyntheticFileSystem& file_system, uint32_t permissions, uint64_t number = 0)
      : SyntheticInode(file_system, S_IFDIR | permissions, number) {}

  virtual base::Result<std::vector<Entry>> List(Task& task) = 0;
  base::Result<std::shared_ptr<File>> Open(Task& task, const Path& path, uint32_t flags) override;
};

// A directory that is filled once, before use, by its maker.
class StaticDirectory : public SyntheticDirectory {
 public:
  using SyntheticDirectory::SyntheticDirectory;
  // Replaces nothing: names are distinct.
  void Add(std::string name, InodeRef child);
  base::Result<InodeRef> Lookup(std::string_view name) override;
  base::Result<std::vector<Entry>> List(Task& task) override;

 private:
  std::vector<std::pair<std::string, InodeRef>> children_;
  absl::flat_hash_map<std::string, InodeRef> index_;
};

// A file of text.
class TextInode : public SyntheticInode {
 public:
  using Reader = std::function<base::Result<std::string>(Task&)>;
  // Gets one write(2)'s bytes, at most kWriteBytesMax of them.
  using Writer = std::function<base::Result<void>(Task&, std::string_view)>;
  static constexpr size_t kWriteBytesMax = 4096;

  // Without a reader: reads give EIO; without a writer: writes do.
  TextInode(SyntheticFileSystem& file_system, uint32_t permissions, Reader reader,
            Writer writer = {})
      : SyntheticInode(file_system, S_IFREG | permissions),
        reader_(std::move(reader)),
        writer_(std::move(writer)) {}
  base::Result<std::shared_ptr<File>> Open(Task& task, const Path& path, uint32_t flags) override;
  const Reader& reader() const { return reader_; }
  const Writer& writer() const { return writer_; }

 private:
  const Reader reader_;
  const Writer writer_;
};

// A symbolic link, its text fixed or computed for who asks.
class LinkInode : public SyntheticInode {
 public:
  using Target = std::function<base::Result<std::string>(Task&)>;
  LinkInode(SyntheticFileSystem& file_system, Target target)
      : SyntheticInode(file_system, S_IFLNK | 0777), target_(std::move(target)) {}
  LinkInode(SyntheticFileSystem& file_system, std::string target)
      : LinkInode(file_system,
                  [text = std::move(target)](Task&) { return base::Result<std::string>(text); }) {}
  base::Result<std::string> ReadLinkFor(Task& task) override { return target_(task); }

 private:
  const Target target_;
};

// Parses what control files accept: an integer with white space around it. EINVAL.
base::Result<int64_t> ParseControlNumber(std::string_view text);

uint8_t DirectoryTypeOf(uint32_t mode);  // S_IF* to DT_*

}  // namespace sentry
