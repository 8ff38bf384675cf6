#pragma once

// System V message queues (msgget(2), msgop(2), msgctl(2)).
//
// Nothing here sleeps: Send and Receive answer EAGAIN, and the handler waits on WaitQueue() of the
// queue it holds. What all queues of a sandbox hold together is bounded, since the messages are the
// sentry's memory.

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/ipc/id_table.h"
#include "sentry/ipc/permissions.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/time/clock.h"

namespace sentry {

struct MsgLimits {
  uint32_t message_bytes_max = 8192;  // kernel.msgmax
  uint32_t queue_bytes_max = 16384;   // kernel.msgmnb
  uint32_t queues_max = 32000;        // kernel.msgmni
};

struct MsgStatus {
  IpcPermissions permissions;
  int64_t send_s = 0, receive_s = 0, change_s = 0;
  uint64_t bytes = 0, messages = 0, bytes_max = 0;
  int32_t last_sender = 0, last_receiver = 0;
};

struct MsgTotals {
  int32_t queues = 0;
  int32_t index_max = 0;
  uint64_t messages = 0;
  uint64_t bytes = 0;
};

struct IpcMessage {
  int64_t type = 0;
  std::vector<std::byte> data;
};

// What msgrcv(2) is to find.
struct MsgSelector {
  int64_t type = 0;
  bool except = false;    // MSG_EXCEPT
  bool truncate = false;  // MSG_NOERROR
  bool copy = false;      // MSG_COPY: `type` is the position, and the message stays.
  uint64_t bytes_max = 0;
};

class MsgQueue;

// Thread-safe; one lock.
class MsgRegistry {
 public:
  // `clock` outlives it.
  explicit MsgRegistry(const Clock& clock) : clock_(clock) {}

  // What the messages of all queues may take.
  static constexpr uint64_t kTotalBytesMax = uint64_t{128} << 20;

  base::Result<int32_t> Get(int32_t key, int32_t flags, const Credentials& who);
  // EINVAL. What Send and Receive want, and which stays the same while they are repeated.
  base::Result<std::shared_ptr<MsgQueue>> Find(int32_t id) const;
  static sentry::WaitQueue& QueueOf(MsgQueue& queue);
  // EAGAIN: no room. Takes the message only if it succeeds. EIDRM, EACCES, EINVAL, ENOMEM.
  base::Result<void> Send(MsgQueue& queue, IpcMessage& message, const Credentials& who,
                          int32_t pid);
  // EAGAIN: no such message. EIDRM, EACCES, E2BIG, EINVAL.
  base::Result<IpcMessage> Receive(MsgQueue& queue, const MsgSelector& selector,
                                   const Credentials& who, int32_t pid);

  base::Result<MsgStatus> Status(int32_t id, bool by_index, bool any, const Credentials& who);
  base::Result<void> SetOwner(int32_t id, const IpcOwnerChange& change, uint64_t bytes_max,
                              const Credentials& who);
  base::Result<void> Remove(int32_t id, const Credentials& who);
  MsgTotals Totals() const;
  std::vector<MsgStatus> All() const;

  MsgLimits limits() const;
  void set_limits(const MsgLimits& limits);
  int32_t next_id() const;
  void set_next_id(int32_t id);

 private:
  int64_t NowSeconds() const;
  static MsgStatus StatusOf(const MsgQueue& queue);

  const Clock& clock_;
  mutable absl::Mutex mu_;
  MsgLimits limits_ ABSL_GUARDED_BY(mu_);
  IpcTable<MsgQueue> table_ ABSL_GUARDED_BY(mu_);
  uint64_t messages_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sentry
