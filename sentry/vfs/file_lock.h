#pragma once

// Advisory locks on an inode: records of processes (fcntl F_SETLK), records of open file
// descriptions (F_OFD_SETLK), and whole-file locks (flock). Nothing here sleeps: a conflict is
// EAGAIN, and who wants to wait does so on queue().

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/wait_queue.h"

namespace sentry {

// Bytes [start, last]; `last` may be kLastByte ("to the end, however far that moves").
struct RecordLock {
  static constexpr uint64_t kLastByte = std::numeric_limits<int64_t>::max();
  uint64_t start = 0;
  uint64_t last = kLastByte;
  bool exclusive = false;
  const void* owner = nullptr;  // A descriptor table (process locks) or an open file description.
  int32_t pid = -1;             // -1 for open file descriptions.
};

// Thread-safe.
class FileLocks {
 public:
  static constexpr size_t kRecordsMax = 65536;

  // Replaces what the owner holds in the range. EAGAIN and *blocker on a conflict; ENOLCK.
  base::Result<void> SetRecord(const RecordLock& lock, RecordLock* blocker)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> ClearRecord(const void* owner, uint64_t start, uint64_t last)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The first lock that would be in the way.
  std::optional<RecordLock> TestRecord(const RecordLock& lock) const ABSL_LOCKS_EXCLUDED(mu_);
  // All of an owner's records.
  void ReleaseRecords(const void* owner) ABSL_LOCKS_EXCLUDED(mu_);

  // flock(2). A change of kind is not atomic: the old lock goes first, as on Linux.
  base::Result<void> SetFlock(const void* owner, bool exclusive) ABSL_LOCKS_EXCLUDED(mu_);
  void ReleaseFlock(const void* owner) ABSL_LOCKS_EXCLUDED(mu_);

  // Notified (POLLOUT) when locks go.
  WaitQueue& queue() { return queue_; }
  // For /proc/locks.
  std::vector<RecordLock> Records() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Flock {
    const void* owner;
    bool exclusive;
  };
  const RecordLock* FindConflict(const RecordLock& lock) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // Takes [start, last] away from what `owner` holds; true if anything was held there.
  bool Carve(const void* owner, uint64_t start, uint64_t last) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable absl::Mutex mu_;
  std::vector<RecordLock> records_ ABSL_GUARDED_BY(mu_);
  std::vector<Flock> flocks_ ABSL_GUARDED_BY(mu_);
  WaitQueue queue_;
};

// Who waits for whom among process locks: finds EDEADLK. Thread-safe.
class LockWaits {
 public:
  // `waiter` (unique per sleeping thread) of `owner` is going to wait for `blocker`'s owner.
  // EDEADLK if that closes a circle.
  base::Result<void> Enter(const void* waiter, const void* owner, const void* blocker)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Leave(const void* waiter) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Wait {
    const void* owner;
    const void* blocker;
  };
  absl::Mutex mu_;
  absl::flat_hash_map<const void*, Wait> waits_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
