#pragma once

// Path walk, and the operations that system calls do on paths. Linux's rules: namei.c, namespace.c
// (6.12), path_resolution(7), openat2(2).

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "platform/base/result.h"
#include "sentry/vfs/caller.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/fs_context.h"
#include "sentry/vfs/mount.h"
#include "sentry/vfs/path.h"

namespace sentry {

class FileSystemTypes;
class LockWaits;
class Mounts;
class Task;

// How a walk treats what it meets.
struct WalkOptions {
  bool follow_last =
      true;  // A symbolic link as the last component (AT_SYMLINK_NOFOLLOW, O_NOFOLLOW).
  bool directory_only = false;  // ENOTDIR otherwise; also by a trailing slash.
  bool empty_path = false;      // AT_EMPTY_PATH
  uint64_t resolve = 0;         // openat2's RESOLVE_*.
  bool will_open = false;       // What is found will be opened for reading: a hint.
};

// Where the last component is or would be. `child` is null if there is none.
struct LastStep {
  Path directory;
  std::string name;  // Empty if the path ended in "/", "." or "..": then `special` is set.
  bool special = false;
  bool trailing_slash = false;
  Path child;
};

struct OpenRequest {
  uint32_t flags = 0;  // open(2)
  uint32_t mode = 0;   // Before umask.
  uint64_t resolve = 0;
};

// The mount table and the dentry cache of one sandbox. Thread-safe. All paths are relative to the
// task's root and to `base`: a directory, or null for the task's working directory.
class Vfs {
 public:
  struct Impl;
  Vfs();
  ~Vfs();

  // --- Mounts: all operations are in mounts.h. These are for set-up code, in the initial
  // namespace.
  Mounts& mounts();
  // The first one becomes the root.
  base::Result<std::shared_ptr<Mount>> MountRoot(FileSystemRef file_system, std::string source,
                                                 uint64_t flags);
  // `flags`: MS_*. `subtree`: show that inode of the file system instead of its root. ENOTDIR,
  // ENOENT, EBUSY.
  base::Result<std::shared_ptr<Mount>> MountAt(const Path& at, FileSystemRef file_system,
                                               std::string source, uint64_t flags,
                                               InodeRef subtree = nullptr);
  // Of the initial namespace.
  Path root() const;
  // An unattached mount and dentry for files that live nowhere (memfd, pipes).
  Path AnonymousPath(FileSystemRef file_system, InodeRef inode, std::string name);

  // --- Walks. Set-up and tests pass a Caller of their own where a Task is not at hand.
  base::Result<Path> Walk(const Caller& caller, const Path& base, std::string_view path,
                          const WalkOptions& options);
  base::Result<LastStep> WalkToParent(const Caller& caller, const Path& base, std::string_view path,
                                      const WalkOptions& options);
  // stat(2): the walk and what is found there.
  struct Looked {
    Attributes attributes;
    uint64_t mount_id = 0;
    uint64_t mount_unique_id = 0;
    bool is_mount_root = false;
  };
  base::Result<Looked> Look(const Caller& caller, const Path& base, std::string_view path,
                            const WalkOptions& options);
  // Without a task, as root, from the root: for set-up.
  base::Result<Path> WalkAsKernel(std::string_view path);
  Caller KernelCaller() const;

  // --- Operations, named as the system calls.
  base::Result<FileRef> Open(Task& task, const Path& base, std::string_view path,
                             const OpenRequest& request);
  // Opens what was found (execve, /proc/PID/fd). Checks access.
  base::Result<FileRef> OpenPath(Task& task, const Path& path, uint32_t flags);
  base::Result<void> MakeDirectory(const Caller& caller, const Path& base, std::string_view path,
                                   uint32_t mode);
  base::Result<void> MakeNode(const Caller& caller, const Path& base, std::string_view path,
                              uint32_t mode, uint64_t rdev);
  // mknod of a socket for bind(2); gives the inode.
  base::Result<Path> MakeSocketNode(const Caller& caller, const Path& base, std::string_view path,
                                    uint32_t mode);
  base::Result<void> MakeSymlink(const Caller& caller, std::string_view target, const Path& base,
                                 std::string_view path);
  base::Result<void> Link(const Caller& caller, const Path& target, const Path& base,
                          std::string_view path);
  base::Result<void> Unlink(const Caller& caller, const Path& base, std::string_view path);
  base::Result<void> RemoveDirectory(const Caller& caller, const Path& base, std::string_view path);
  base::Result<void> Rename(const Caller& caller, const Path& old_base, std::string_view old_path,
                            const Path& new_base, std::string_view new_path, uint32_t flags);
  // Permission and read-only mounts are checked: chmod, chown, utimensat, truncate.
  base::Result<void> SetAttributes(const Caller& caller, const Path& path,
                                   const AttributeChanges& changes);

  // Absolute name of `path` as seen from `root` (getcwd, /proc/PID/fd, maps); "(unreachable)"
  // prefix and " (deleted)" suffix as Linux writes them.
  std::string NameOf(const Path& path, const Path& root) const;

  // How the vfs opens character and block devices: set once at start-up by sentry/fs/dev.
  using DeviceOpener =
      std::function<base::Result<FileRef>(Task&, const Path&, uint64_t rdev, uint32_t flags)>;
  void SetCharacterDeviceOpener(DeviceOpener opener);
  // Likewise FIFOs (sentry/fs/pipe).
  using FifoOpener = std::function<base::Result<FileRef>(Task&, const Path&, uint32_t flags)>;
  void SetFifoOpener(FifoOpener opener);

  // What mount(2) can make: set before the first task runs.
  FileSystemTypes& file_system_types();  // file_system_type.h

  // Process record locks that sleep.
  LockWaits& lock_waits();
  // Entries of the dentry cache.
  size_t cached_dentries() const;

 private:
  std::unique_ptr<Impl> impl_;

  base::Result<FileRef> OpenUnnamed(Task& task, const Caller& caller, const Path& base,
                                    std::string_view path, const OpenRequest& request);
};

// The caller may write to the directory, and a sticky bit does not protect `victim` from him.
// `victim_is_directory` says what the call is for. EACCES, EPERM, ENOTDIR, EISDIR, ENOENT.
base::Result<void> MayDelete(const Caller& caller, Dentry& directory, Dentry& victim,
                             bool victim_is_directory);
// EACCES; ENOENT in a deleted directory.
base::Result<void> MayCreate(const Caller& caller, Dentry& directory);
// Owner and group of something new in `directory`: set-group-id directories pass their group on.
base::Result<CreateContext> NewOwner(const Caller& caller, Inode& directory, uint32_t type,
                                     uint32_t mode);
// The mode bits that are left when somebody without CAP_FSETID writes, and whenever the owner
// changes.
uint32_t ModeWithoutPrivileges(const Attributes& attributes, const Credentials& who);
// Before data is changed through a descriptor.
base::Result<void> DropPrivilegesBeforeWrite(Inode& inode, const Credentials& who);
// True if reading `path` now has to change the access time (relatime and its flags).
bool AccessTimeIsStale(const Path& path, uint32_t file_flags, const Attributes& attributes,
                       Timestamp now);

}  // namespace sentry
