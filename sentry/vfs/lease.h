#pragma once

// Leases on regular files (fcntl(2), F_SETLEASE): the holder is told by a signal, and given time,
// before somebody else opens or truncates the file in a way that conflicts.

#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/wait_queue.h"

namespace sentry {

class File;
class Inode;
class Task;

// fs.lease-break-time and fs.leases-enable of a sandbox.
struct LeaseSettings {
  std::atomic<int32_t> break_seconds{45};
  std::atomic<bool> enabled{true};
};

// Of one inode. Thread-safe.
class LeaseList {
 public:
  // F_RDLCK or F_WRLCK for `file`, which takes the place of what it had. EAGAIN: others have the
  // file open in a way that conflicts, or hold a lease. EINVAL: leases are off.
  base::Result<void> Set(File& file, int32_t fd, int type, Inode& inode,
                         const LeaseSettings& settings) ABSL_LOCKS_EXCLUDED(mu_);
  // F_UNLCK: EAGAIN if it has none.
  base::Result<void> Clear(const File& file) ABSL_LOCKS_EXCLUDED(mu_);
  // F_RDLCK, F_WRLCK, F_UNLCK: what it will be once a break under way is over.
  int TypeOf(const File& file, int64_t now_ns) ABSL_LOCKS_EXCLUDED(mu_);

  // One look of somebody who is about to open or truncate the file: tells the holders of what
  // conflicts. EAGAIN while one is in the way; `deadline_ns` is when it will be taken away.
  base::Result<void> Break(bool for_write, int64_t now_ns, const LeaseSettings& settings,
                           int64_t* deadline_ns) ABSL_LOCKS_EXCLUDED(mu_);
  bool empty() const { return count_.load(std::memory_order_acquire) == 0; }
  WaitQueue& queue() { return queue_; }

 private:
  struct Lease {
    File* file;  // Alive: its end clears the lease.
    int32_t fd;
    int type;
    int target;           // Differs from `type` while it is broken.
    int64_t deadline_ns;  // Then.
  };
  void ExpireLocked(int64_t now_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CountLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  std::atomic<size_t> count_{0};
  WaitQueue queue_;  // POLLOUT: a lease has gone or is less than it was.
  absl::Mutex mu_;
  std::vector<Lease> leases_ ABSL_GUARDED_BY(mu_);
};

// Sleeps until no lease is in the way of an open with `flags` (O_TRUNC counts as writing). EAGAIN
// with O_NONBLOCK; kRestartSys.
base::Result<void> AwaitLeases(Task& task, Inode& inode, uint32_t flags);

}  // namespace sentry
