#pragma once

// System V shared memory (shmget(2), shmat(2), shmctl(2)): segments of the memory pool that
// processes attach by id.
//
// An attachment is a mapping of an object of its own, which knows in which address spaces it is
// shown: a fork, an exit, a munmap(2) of its last piece count by themselves, whoever makes them.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "sentry/ipc/id_table.h"
#include "sentry/ipc/permissions.h"
#include "sentry/mm/mappable.h"
#include "sentry/time/clock.h"

namespace sentry {

class SharedAnonymous;

struct ShmLimits {
  // Linux's defaults but for the sum: that is the sandbox's memory.
  uint64_t segment_bytes_max = 0xffffffffff000000 - 1;  // kernel.shmmax
  uint64_t pages_max = 0xffffffffff000000 - 1;          // kernel.shmall
  uint32_t segments_max = 4096;                         // kernel.shmmni
};

// As shmctl(IPC_STAT) and /proc/sysvipc/shm show it.
struct ShmStatus {
  IpcPermissions permissions;
  uint64_t bytes = 0;
  int64_t attach_s = 0, detach_s = 0, change_s = 0;
  int32_t creator_pid = 0, last_pid = 0;
  uint64_t attachments = 0;
};

struct ShmTotals {
  int32_t segments = 0;
  int32_t index_max = 0;
  uint64_t pages = 0;
};

class ShmSegment;

// Thread-safe. Lock order: a MemoryManager's lock, then mu_.
class ShmRegistry : public std::enable_shared_from_this<ShmRegistry> {
 public:
  // Both outlive it.
  ShmRegistry(platform::MemoryPool& pool, const Clock& clock) : pool_(pool), clock_(clock) {}

  static constexpr uint32_t kDestroy = 01000;  // SHM_DEST
  static constexpr uint32_t kLocked = 02000;   // SHM_LOCKED

  // shmget(2). ENOENT, EEXIST, EACCES, EINVAL, ENOSPC, ENOMEM.
  base::Result<int32_t> Get(int32_t key, uint64_t bytes, int32_t flags, const Credentials& who,
                            int32_t pid);
  struct Attachment {
    std::shared_ptr<Mappable> mappable;
    uint64_t bytes = 0;  // Whole pages.
    std::string name;    // As in /proc/PID/maps.
  };
  // For shmat(2): an object to be mapped, once. EINVAL; EACCES.
  base::Result<Attachment> Attach(int32_t id, uint32_t access, const Credentials& who);
  // True for what Attach has returned.
  static bool IsAttachment(const Mappable& mappable);

  // EINVAL; EACCES. `by_index`: SHM_STAT; `any`: SHM_STAT_ANY.
  base::Result<ShmStatus> Status(int32_t id, bool by_index, bool any, const Credentials& who);
  base::Result<void> SetOwner(int32_t id, const IpcOwnerChange& change, const Credentials& who);
  base::Result<void> Remove(int32_t id, const Credentials& who);
  // SHM_LOCK, SHM_UNLOCK. `lock_limit`: RLIMIT_MEMLOCK.
  base::Result<void> SetLocked(int32_t id, bool locked, uint64_t lock_limit,
                               const Credentials& who);
  ShmTotals Totals() const;
  std::vector<ShmStatus> All() const;

  ShmLimits limits() const;
  void set_limits(const ShmLimits& limits);
  int32_t next_id() const;
  void set_next_id(int32_t id);

 private:
  friend class ShmAttachment;
  base::Result<int32_t> Make(int32_t key, uint64_t bytes, int32_t flags, const Credentials& who,
                             int32_t pid) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountAttached(ShmSegment& segment);
  void CountDetached(ShmSegment& segment);
  void DestroyLocked(ShmSegment& segment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  ShmStatus StatusLocked(const ShmSegment& segment) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  int64_t NowSeconds() const;

  platform::MemoryPool& pool_;
  const Clock& clock_;
  mutable absl::Mutex mu_;
  ShmLimits limits_ ABSL_GUARDED_BY(mu_);
  IpcTable<ShmSegment> table_ ABSL_GUARDED_BY(mu_);
  uint64_t pages_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sentry
