#pragma once

// Files that travel in messages (SCM_RIGHTS). A socket whose descriptor is only inside a message,
// which waits in a socket that is only inside a message... can form a ring that no descriptor
// reaches: with reference counts alone it would never be freed, and a guest could fill the sentry
// with such rings.
//
// So sockets in flight are counted, their number is bounded, and a collector looks for rings: a
// socket all of whose references are in messages is alive only if some other live one can deliver
// it (Linux: net/unix/garbage.c). mu_ is taken before any Channel's lock; packets with files enter
// and leave queues only under it, so the collector sees them at rest.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/vfs/file.h"

namespace sentry {

class Channel;

// Implemented by sockets that can hold messages with files.
class RightsHolder {
 public:
  virtual ~RightsHolder() = default;
  // Every queue that a receive on it, or on a connection waiting in it, would deliver from.
  virtual void AppendInboxes(std::vector<std::shared_ptr<Channel>>& inboxes) = 0;
};

class RightsInFlight {
 public:
  // Whatever the senders' limits say.
  static constexpr size_t kFilesMax = 65536;

  // Runs `enqueue`, which puts `count` files into a queue, with the lock held. ETOOMANYREFS if more
  // files would be in flight than the sender's RLIMIT_NOFILE (unless CAP_SYS_RESOURCE or
  // CAP_SYS_ADMIN), or than kFilesMax.
  base::Result<void> Send(Task& task, size_t count, absl::FunctionRef<void()> enqueue)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Runs `dequeue`, which takes files out of queues, with the lock held.
  void Receive(absl::FunctionRef<void()> dequeue) ABSL_LOCKS_EXCLUDED(mu_);
  // To be called by those.
  void AddInFlight(const std::vector<FileRef>& files);
  void RemoveInFlight(const std::vector<FileRef>& files);

  // Drops references. What that destroys may drop more: done in a loop, so that a chain of messages
  // in messages cannot use up the stack.
  void Dispose(std::vector<FileRef> files);
  // Frees rings, if anything is in flight.
  void Collect() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  std::vector<FileRef> FindGarbageLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  size_t files_ ABSL_GUARDED_BY(mu_) = 0;
  // Sockets in flight, with how many of their references are in messages.
  absl::flat_hash_map<File*, int64_t> sockets_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
