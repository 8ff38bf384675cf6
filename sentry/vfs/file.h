#pragma once

// An open file description (open(2)): what descriptors refer to. Everything that has a descriptor
// derives from it: regular files, directories, pipes, sockets, eventfd, epoll, terminals.
//
// Reads and writes never sleep: they return EAGAIN when they cannot go on, and the system-call
// layer waits on wait_queue() (see kernel/blocking.h). Host calls that only wait for a disk are
// fine.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/time/clock.h"
#include "sentry/vfs/attributes.h"
#include "sentry/vfs/path.h"

namespace sentry {

class FileOwner;
class Inode;
class Mappable;
class Task;
struct MmapRequest;

// One directory entry for getdents64(2).
struct DirectoryEntry {
  std::string_view name;
  uint64_t inode = 0;
  uint8_t type = 0;  // DT_*
  uint64_t next_offset = 0;
};
// Returns false when the entry does not fit: iteration stops before it.
using DirectorySink = std::function<bool(const DirectoryEntry&)>;

class File : public std::enable_shared_from_this<File> {
 public:
  // `flags`: access mode and status flags of open(2). `path` may be empty (pipes, sockets): then
  // GetAttributes is to be overridden.
  File(Path path, uint32_t flags, CredentialsRef credentials);
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  virtual ~File();

  bool readable() const { return (access_mode_ == 0 || access_mode_ == 2) && !is_path_only(); }
  bool writable() const { return (access_mode_ == 1 || access_mode_ == 2) && !is_path_only(); }
  bool is_path_only() const;  // O_PATH
  // Counts as a writer of its inode from now on, as open(2) for writing does: ETXTBSY while it is
  // executed.
  base::Result<void> TakeWriteAccess();
  // Of a regular file: counted as one of its inode's readers from now on.
  void CountAsReader();
  // open(2) has made the file (F_CREATED_QUERY).
  bool has_created() const { return has_created_; }
  void set_has_created() { has_created_ = true; }
  // The other side: nobody may write to it while this description is open, or until AllowWrite.
  // ETXTBSY if somebody does.
  base::Result<void> DenyWrite();
  void AllowWrite();
  // Status flags as F_GETFL returns them.
  uint32_t flags() const { return flags_.load(std::memory_order_relaxed); }
  bool nonblocking() const;
  // F_SETFL: O_APPEND, O_NONBLOCK, O_ASYNC, O_DIRECT, O_NOATIME change. EINVAL, EPERM.
  virtual base::Result<void> SetFlags(Task& task, uint32_t flags);
  const Path& path() const { return path_; }
  const CredentialsRef& credentials() const { return credentials_; }
  // Null where there is none.
  virtual std::shared_ptr<Inode> inode() const;

  // --- Data. The caller has checked readable()/writable(). `offset`: a pointer to the position to
  // use and advance, or null for files without one (pipes, sockets, ttys).
  virtual base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset);  // EINVAL / EISDIR
  // A blocking file that must take all bytes (pipe, socket, terminal) returns EAGAIN with the
  // buffer advanced when it has taken some: so whoever gives up for EAGAIN or a restart code
  // returns from.done() if that is not 0.
  virtual base::Result<size_t> Write(Task& task, IoBuffer& from,
                                     uint64_t* offset);  // O_APPEND handled here
  // False: lseek, pread, pwrite give ESPIPE.
  virtual bool seekable() const { return false; }
  // New position; `position_` locked by the caller. Default: SEEK_SET/CUR/END over
  // GetAttributes().size.
  virtual base::Result<uint64_t> Seek(Task& task, uint64_t position, int64_t offset, int whence);
  // From *offset on; sets *offset to continue. ENOTDIR.
  virtual base::Result<void> ReadDirectory(Task& task, uint64_t* offset, const DirectorySink& sink);
  virtual base::Result<uint64_t> Ioctl(Task& task, uint32_t command, uint64_t argument);  // ENOTTY
  // fcntl(2) commands that only some kinds of file know. Default: EBADF for F_SETPIPE_SZ and
  // F_GETPIPE_SZ, EINVAL for all others (F_ADD_SEALS, F_GET_SEALS, ...).
  virtual base::Result<uint64_t> Fcntl(Task& task, int command, uint64_t argument);
  virtual base::Result<void> Sync(bool data_only);  // EINVAL
  virtual base::Result<void> Allocate(int mode, uint64_t offset,
                                      uint64_t length);  // EOPNOTSUPP, ENODEV, ESPIPE
  virtual base::Result<void> Truncate(uint64_t size);    // EINVAL

  // --- Mapping. Fills request.mappable (and may refuse: ENODEV, EACCES, ETXTBSY).
  virtual base::Result<void> ConfigureMmap(MmapRequest& request);

  // --- Readiness. Default: always readable and writable, queue never notified.
  virtual PollMask Poll(PollMask interest);
  // Null: never blocks (regular files): epoll_ctl refuses such with EPERM.
  virtual WaitQueue* wait_queue() { return nullptr; }

  // How long read(2) and write(2) may wait (SO_RCVTIMEO, SO_SNDTIMEO).
  virtual Deadline ReadDeadline(Task& task) {
    (void)task;
    return Deadline::Never();
  }
  virtual Deadline WriteDeadline(Task& task) {
    (void)task;
    return Deadline::Never();
  }

  // --- Attributes. Defaults go through the inode.
  virtual base::Result<Attributes> GetAttributes();
  virtual base::Result<void> SetAttributes(const AttributeChanges& changes);

  // A descriptor that referred to it was closed by `task` (POSIX locks go; flush). Errors are
  // close(2)'s.
  virtual base::Result<void> OnClose(Task& task);

  // The file position, shared by all descriptors of this description (f_pos_lock).
  absl::Mutex& position_mutex() { return position_mutex_; }
  uint64_t& position() { return position_; }
  // Where the true position is kept elsewhere (a description shared with the host): brings
  // position() up to date / makes its change known. For callers that work on a copy of it;
  // position_mutex() is held.
  virtual void FetchPosition() {}
  virtual void PublishPosition() {}

  // May O_ASYNC be set: is the queue notified of data that come and room that gets free?
  virtual bool SupportsAsync() const { return false; }
  // F_SETOWN and friends. Made by the first call; the second gives null if nobody made it.
  FileOwner& owner();
  FileOwner* owner_if_any() const { return owner_.load(std::memory_order_acquire); }

  // Text for /proc/PID/fd/N when there is no path: "pipe:[7]", "anon_inode:[eventfd]".
  virtual std::string DisplayName() const;
  // Extra lines of /proc/PID/fdinfo/N.
  virtual std::string FdInfo() const { return {}; }

 protected:
  void set_flags(uint32_t flags) { flags_.store(flags, std::memory_order_relaxed); }

 private:
  Path path_;
  const uint32_t access_mode_;
  bool has_write_access_ = false;
  bool is_reader_ = false;
  bool has_created_ = false;
  std::atomic<bool> denies_write_{false};
  std::atomic<uint32_t> flags_;
  CredentialsRef credentials_;
  std::atomic<FileOwner*> owner_{nullptr};  // Owned.
  absl::Mutex position_mutex_;
  uint64_t position_ = 0;
};

using FileRef = std::shared_ptr<File>;

}  // namespace sentry
