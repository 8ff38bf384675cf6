#include "sentry/vfs/lease.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <limits>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/file_owner.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/inode_attachments.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr int64_t kNsPerSecond = 1'000'000'000;

// check_conflicting_open in Linux.
Result<void> CheckOpens(const File& file, int type, Inode& inode) {
  const int writers = inode.attachments().writers();
  if (type == F_RDLCK) return writers > 0 ? Result<void>(Errno(EAGAIN)) : Result<void>();
  const int own_writers = file.writable() ? 1 : 0;
  const int own_readers = file.writable() ? 0 : 1;
  if (writers != own_writers || inode.readers() != own_readers) return Errno(EAGAIN);
  return {};
}

}  // namespace

void LeaseList::CountLocked() { count_.store(leases_.size(), std::memory_order_release); }

void LeaseList::ExpireLocked(int64_t now_ns) {
  bool changed = false;
  for (Lease& lease : leases_) {
    if (lease.target == lease.type || now_ns < lease.deadline_ns) continue;
    lease.type = lease.target;
    changed = true;
  }
  if (!changed) return;
  std::erase_if(leases_, [](const Lease& lease) { return lease.type == F_UNLCK; });
  CountLocked();
  queue_.Notify(kPollWritable);
}

Result<void> LeaseList::Set(File& file, int32_t fd, int type, Inode& inode,
                            const LeaseSettings& settings) {
  const absl::MutexLock lock(&mu_);
  TRY(CheckOpens(file, type, inode));
  Lease* own = nullptr;
  for (Lease& lease : leases_) {
    if (lease.file == &file) {
      own = &lease;
    } else if (type == F_WRLCK || lease.target == F_UNLCK) {
      return Errno(EAGAIN);
    }
  }
  // Who broke it counts as a writer already.
  if (own != nullptr && own->target == F_UNLCK && own->type != F_UNLCK) return Errno(EAGAIN);
  if (own != nullptr) {
    own->type = own->target = type;
    queue_.Notify(kPollWritable);
    return {};
  }
  if (!settings.enabled.load(std::memory_order_relaxed)) return Errno(EINVAL);
  leases_.push_back({&file, fd, type, type, 0});
  CountLocked();
  return {};
}

Result<void> LeaseList::Clear(const File& file) {
  const absl::MutexLock lock(&mu_);
  if (std::erase_if(leases_, [&](const Lease& lease) { return lease.file == &file; }) == 0)
    return Errno(EAGAIN);
  CountLocked();
  queue_.Notify(kPollWritable);
  return {};
}

int LeaseList::TypeOf(const File& file, int64_t now_ns) {
  const absl::MutexLock lock(&mu_);
  ExpireLocked(now_ns);
  for (const Lease& lease : leases_) {
    if (lease.file == &file) return lease.target;
  }
  return F_UNLCK;
}

Result<void> LeaseList::Break(bool for_write, int64_t now_ns, const LeaseSettings& settings,
                              int64_t* deadline_ns) {
  const absl::MutexLock lock(&mu_);
  ExpireLocked(now_ns);
  const int target = for_write ? F_UNLCK : F_RDLCK;
  const int32_t seconds = settings.break_seconds.load(std::memory_order_relaxed);
  bool blocked = false;
  *deadline_ns = std::numeric_limits<int64_t>::max();
  for (Lease& lease : leases_) {
    const bool conflicts = for_write || lease.type == F_WRLCK;
    if (!conflicts) continue;
    blocked = true;
    const bool told = lease.target != lease.type && (lease.target == F_UNLCK || target == F_RDLCK);
    if (!told) {
      lease.target = target;
      // 0: no end.
      lease.deadline_ns =
          seconds > 0 ? now_ns + seconds * kNsPerSecond : std::numeric_limits<int64_t>::max();
      lease.file->owner().Tell(lease.fd);
    }
    *deadline_ns = std::min(*deadline_ns, lease.deadline_ns);
  }
  if (blocked) return Errno(EAGAIN);
  return {};
}

Result<void> AwaitLeases(Task& task, Inode& inode, uint32_t flags) {
  Inode::Attachments* attachments = inode.attachments_if_any();
  if (attachments == nullptr || attachments->leases.empty()) return {};
  const bool for_write = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
  LeaseList& leases = attachments->leases;
  Kernel& kernel = task.kernel();
  while (true) {
    int64_t deadline_ns = 0;
    const Result<void> result = RetryUntilReady(
        task, &leases.queue(), POLLOUT, true, Deadline::Never(), [&]() -> Result<void> {
          return leases.Break(for_write, kernel.clock().MonotonicNs(), kernel.leases(),
                              &deadline_ns);
        });
    if (result.ok() || result.error() != EAGAIN || (flags & O_NONBLOCK) != 0) return result;
    // Until something changes, or the holders have had their time.
    const Result<void> waited = RetryUntilReady(
        task, &leases.queue(), POLLOUT, false, Deadline::At(deadline_ns), [&]() -> Result<void> {
          int64_t now_deadline_ns = 0;
          return leases.Break(for_write, kernel.clock().MonotonicNs(), kernel.leases(),
                              &now_deadline_ns);
        });
    if (waited.ok() || waited.error() != ETIMEDOUT) return waited;
  }
}

}  // namespace sentry
