#pragma once

// What files without a name share: pipefs, the inode behind "anon_inode:[...]", and their numbers.

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "sentry/kernel/credentials.h"
#include "sentry/time/clock.h"
#include "sentry/vfs/attributes.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/file_system.h"
#include "sentry/vfs/path.h"

namespace sentry {

class Pipe;
class Tmpfs;
class Vfs;

// One per kernel. Thread-safe.
class AnonymousFiles {
 public:
  // Both outlive it. Sets the vfs's FifoOpener.
  AnonymousFiles(Vfs& vfs, const Clock& clock);
  ~AnonymousFiles();
  AnonymousFiles(const AnonymousFiles&) = delete;
  AnonymousFiles& operator=(const AnonymousFiles&) = delete;

  // As shown in "pipe:[N]" and "socket:[N]".
  uint64_t NextInode() { return next_inode_.fetch_add(1, std::memory_order_relaxed); }
  // An inode for `pipe` with a place in no directory, so that /proc/PID/fd/N can be opened.
  Path MakePipePath(std::shared_ptr<Pipe> pipe, const Credentials& owner);
  // Of all files of the kinds eventfd, epoll, ...
  const Attributes& anonymous_attributes() const { return anonymous_attributes_; }

  // The hidden tmpfs instance behind memfd_create(2) and shmget(2), made by the first use. `pool`
  // outlives it.
  std::shared_ptr<Tmpfs> SharedMemory(platform::MemoryPool& pool) ABSL_LOCKS_EXCLUDED(mu_);

  // inotify(7)'s limits per user. EMFILE; ENOSPC.
  base::Result<void> AddInotifyInstance(uint32_t uid) ABSL_LOCKS_EXCLUDED(mu_);
  void RemoveInotifyInstance(uint32_t uid) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> AddInotifyWatch(uint32_t uid) ABSL_LOCKS_EXCLUDED(mu_);
  void RemoveInotifyWatch(uint32_t uid) ABSL_LOCKS_EXCLUDED(mu_);

  // /proc/sys/fs/epoll/max_user_watches, of all users together. ENOSPC.
  static constexpr int64_t kEpollWatchesMax = 1 << 20;
  base::Result<void> AddEpollWatch();
  void RemoveEpollWatch() { epoll_watches_.fetch_sub(1, std::memory_order_relaxed); }
  // Requests that io_setup(2) has set aside, at most kAioRequestsMax (fs.aio-nr, fs.aio-max-nr).
  static constexpr uint64_t kAioRequestsMax = 65536;
  std::atomic<uint64_t>& aio_requests() { return aio_requests_; }
  // Held while epoll descriptions that contain each other change (epoll.cc).
  absl::Mutex& epoll_nesting_mu() { return epoll_nesting_mu_; }

 private:
  struct InotifyUse {
    uint32_t instances = 0;
    uint32_t watches = 0;
  };
  Vfs& vfs_;
  const Clock& clock_;
  const FileSystemRef pipe_file_system_;
  Attributes anonymous_attributes_;
  std::atomic<uint64_t> next_inode_{1};
  std::atomic<int64_t> epoll_watches_{0};
  std::atomic<uint64_t> aio_requests_{0};
  absl::Mutex epoll_nesting_mu_;
  absl::Mutex mu_;
  std::shared_ptr<Tmpfs> shared_memory_ ABSL_GUARDED_BY(mu_);
  std::map<uint32_t, InotifyUse> inotify_use_ ABSL_GUARDED_BY(mu_);
};

// A file of one of those kinds, open for reading and writing.
class AnonymousFile : public File {
 public:
  // `kind`: "[eventfd]", a literal. `flags`: O_NONBLOCK and the access mode.
  AnonymousFile(Task& task, std::string_view kind, uint32_t flags);
  base::Result<Attributes> GetAttributes() override { return attributes_; }
  base::Result<void> SetAttributes(const AttributeChanges& changes) override;
  std::string DisplayName() const override;

 private:
  const std::string_view kind_;
  const Attributes attributes_;
};

}  // namespace sentry
