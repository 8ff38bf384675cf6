#pragma once

// An object of a file system, in Linux's terms. Names are in dentries (dentry.h); the generic path
// walk (path_walk.h) does permission checks, symbolic links, mounts and the dentry cache, so that a
// file system implements only what follows.
//
// Thread-safe. The vfs holds the parent directory's dentry lock around operations that change it
// (Create.. Rename), so that two changes of one directory do not run at once; reads (Lookup,
// GetAttributes) may run at any time. Default implementations answer as Linux does for an inode
// type without that operation.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "platform/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/vfs/attributes.h"

namespace sentry {

struct DirectoryEntry;
class Task;
class File;
class FileSystem;
class Inode;
struct Path;

using InodeRef = std::shared_ptr<Inode>;
using DirectorySink = std::function<bool(const DirectoryEntry&)>;  // file.h

// Owner of what is made.
struct CreateContext {
  uint32_t mode = 0;  // Permission bits, umask applied.
  uint32_t uid = 0;
  uint32_t gid = 0;
};

inline constexpr size_t kNameBytesMax = 255;
inline constexpr size_t kPathBytesMax = 4096;  // With the NUL.
inline constexpr int kSymlinksMax = 40;

class Inode : public std::enable_shared_from_this<Inode> {
 public:
  explicit Inode(FileSystem& file_system) : file_system_(file_system) {}
  Inode(const Inode&) = delete;
  Inode& operator=(const Inode&) = delete;
  virtual ~Inode();

  FileSystem& file_system() const { return file_system_; }

  // Type bits of the mode; never changes.
  virtual uint32_t type() const = 0;  // S_IFREG, S_IFDIR, ...
  virtual base::Result<Attributes> GetAttributes() = 0;
  virtual base::Result<void> SetAttributes(const AttributeChanges& changes);  // EROFS, EPERM

  // --- Directories. ENOTDIR by default.
  // ENOENT if there is none (the vfs caches that answer if CachesNegatives).
  virtual base::Result<InodeRef> Lookup(std::string_view name);
  // Hint before a walk of `remaining` ("a/b/c") from here: may fetch several steps at once.
  // `will_open`: to open what is there for reading.
  virtual void WillWalk(std::string_view remaining, bool will_open);
  virtual base::Result<InodeRef> Create(std::string_view name,
                                        const CreateContext& context);  // Regular file
  virtual base::Result<InodeRef> MakeDirectory(std::string_view name, const CreateContext& context);
  virtual base::Result<InodeRef> MakeNode(std::string_view name, const CreateContext& context,
                                          uint32_t type, uint64_t rdev);
  virtual base::Result<InodeRef> MakeSymlink(std::string_view name, std::string_view target,
                                             const CreateContext& context);
  virtual base::Result<void> Link(std::string_view name, Inode& target);
  virtual base::Result<void> Unlink(std::string_view name, Inode& child);
  virtual base::Result<void> RemoveDirectory(std::string_view name, Inode& child);  // ENOTEMPTY
  // `replaced` may be null. flags: RENAME_NOREPLACE (checked by the vfs), RENAME_EXCHANGE,
  // RENAME_WHITEOUT.
  virtual base::Result<void> Rename(std::string_view old_name, Inode& child, Inode& new_directory,
                                    std::string_view new_name, Inode* replaced, uint32_t flags);
  // O_TMPFILE: an unnamed regular file. EOPNOTSUPP by default.
  virtual base::Result<InodeRef> CreateUnnamed(const CreateContext& context);

  // For file systems on top of this one, without an open file or a task. EOPNOTSUPP by default.
  // Names without "." and "..", from *offset on (0 to begin); sets *offset to continue.
  virtual base::Result<void> ReadEntries(uint64_t* offset, const DirectorySink& sink);
  // Content of a regular file; short at its end.
  virtual base::Result<size_t> ReadContent(uint64_t offset, std::span<std::byte> out);

  // --- Symbolic links. EINVAL by default.
  virtual base::Result<std::string> ReadLink();
  // The same without a call of anything or a copy, if it is known and never changes.
  virtual const std::string* KnownTarget() const { return nullptr; }
  // What the walk and readlink(2) call: for links whose text depends on who asks (/proc/self).
  virtual base::Result<std::string> ReadLinkFor(Task& task) {
    (void)task;
    return ReadLink();
  }
  // Magic links (/proc/PID/fd/N, /proc/PID/exe, ...): where the walk goes on, instead of ReadLink's
  // text. Null Path (no dentry) means "not magic".
  virtual base::Result<Path> FollowMagic(Task& task);

  // --- Opening. `flags` are open(2)'s without O_CREAT, O_EXCL, O_NOFOLLOW, O_CLOEXEC; access is
  // checked; O_TRUNC was done by the vfs through SetAttributes. `path` is where it was found, kept
  // in the file. FIFOs, sockets (ENXIO) and device numbers are dispatched by the vfs before it
  // comes here, unless HandlesOwnOpen.
  virtual base::Result<std::shared_ptr<File>> Open(Task& task, const Path& path, uint32_t flags);
  // True if device nodes and FIFOs of this file system are opened by its own Open.
  virtual bool HandlesOwnOpen() const { return false; }

  // --- Extended attributes. EOPNOTSUPP by default.
  virtual base::Result<std::string> GetXattr(std::string_view name);  // ENODATA
  virtual base::Result<void> SetXattr(std::string_view name, std::span<const std::byte> value,
                                      int flags);
  virtual base::Result<void> RemoveXattr(std::string_view name);
  virtual base::Result<std::vector<std::string>> ListXattr();

  // Permission beyond mode bits (proc's ptrace rules). mask: MAY_* = R_OK|W_OK|X_OK. Default:
  // GenericPermission.
  virtual base::Result<void> CheckPermission(const Credentials& credentials, int mask);

  // Hung on the inode by other parts: the pipe of a FIFO, the bound socket, locks, watches. Created
  // on demand and kept as long as the inode: see inode_attachments.h.
  struct Attachments;
  Attachments& attachments();
  // Descriptions of a regular file that are open for reading only (leases).
  int readers() const { return readers_.load(std::memory_order_acquire); }
  void AddReader() { readers_.fetch_add(1, std::memory_order_acq_rel); }
  void RemoveReader() { readers_.fetch_sub(1, std::memory_order_acq_rel); }
  // Null if nothing was ever hung on it.
  Attachments* attachments_if_any() const { return attachments_.load(std::memory_order_acquire); }

 private:
  FileSystem& file_system_;
  std::atomic<int> readers_{0};
  std::atomic<Attachments*> attachments_{nullptr};  // Set once; owned.
};

// inode_permission's rule (path_resolution(7)): owner, group, other; CAP_DAC_OVERRIDE,
// CAP_DAC_READ_SEARCH.
base::Result<void> GenericPermission(const Attributes& attributes, const Credentials& credentials,
                                     int mask);

}  // namespace sentry
