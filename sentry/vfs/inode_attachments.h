#pragma once

// What other parts hang on an inode: made on demand, gone with the inode.

#include <algorithm>
#include <atomic>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/vfs/directory_notice.h"
#include "sentry/vfs/file_lock.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/lease.h"
#include "sentry/vfs/notify.h"

namespace sentry {

struct Inode::Attachments {
  FileLocks locks;
  LeaseList leases;
  WatchList watches;
  DirectoryNotices notices;

  // open(2) for writing against execve(2), i_writecount: ETXTBSY where the other side holds it.
  base::Result<void> GetWriteAccess();
  void PutWriteAccess();
  base::Result<void> DenyWrite();
  void AllowWrite();
  // 0 while it is denied.
  int writers() const { return std::max(write_count_.load(std::memory_order_acquire), 0); }

  // O_TMPFILE with O_EXCL: linkat(2) refuses.
  std::atomic<bool> never_linked{false};

  absl::Mutex mu;
  std::shared_ptr<void> fifo ABSL_GUARDED_BY(mu);  // sentry/fs/pipe: the pipe behind a FIFO.
  std::weak_ptr<void> socket ABSL_GUARDED_BY(mu);  // sentry/socket: what is bound to a socket file.

 private:
  std::atomic<int> write_count_{0};  // Writers, or minus the number of denials.
};

}  // namespace sentry
