#include "sentry/ipc/message_queues.h"

#include <linux/capability.h>

#include <cerrno>
#include <limits>
#include <utility>

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// What a message costs beside its bytes.
constexpr uint64_t kMessageOverhead = 64;

bool Matches(const IpcMessage& message, const MsgSelector& selector, uint64_t position) {
  if (selector.copy) return position == static_cast<uint64_t>(selector.type);
  if (selector.type == 0) return true;
  if (selector.type > 0) return (message.type == selector.type) != selector.except;
  // The lowest type up to this: the caller goes on looking.
  const int64_t most = selector.type == std::numeric_limits<int64_t>::min()
                           ? std::numeric_limits<int64_t>::max()
                           : -selector.type;
  return message.type <= most;
}

}  // namespace

class MsgQueue {
 public:
  IpcPermissions permissions;
  int64_t send_s = 0, receive_s = 0, change_s = 0;
  uint64_t bytes = 0, bytes_max = 0;
  int32_t last_sender = 0, last_receiver = 0;
  bool removed = false;
  std::list<IpcMessage> messages;
  WaitQueue queue;  // POLLIN: a message; POLLOUT: room.
};

WaitQueue& MsgRegistry::QueueOf(MsgQueue& queue) { return queue.queue; }

int64_t MsgRegistry::NowSeconds() const { return clock_.RealtimeNs() / 1'000'000'000; }

Result<int32_t> MsgRegistry::Get(int32_t key, int32_t flags, const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const auto fits = [](const MsgQueue&) -> Result<void> { return {}; };
  return GetIpcObject(table_, key, flags, who, fits, [&]() -> Result<int32_t> {
    mu_.AssertHeld();
    auto queue = std::make_shared<MsgQueue>();
    queue->permissions = NewIpcPermissions(key, flags, who);
    queue->change_s = NowSeconds();
    queue->bytes_max = limits_.queue_bytes_max;
    return table_.Insert(std::move(queue), limits_.queues_max);
  });
}

Result<std::shared_ptr<MsgQueue>> MsgRegistry::Find(int32_t id) const {
  const absl::MutexLock lock(&mu_);
  return table_.Find(id);
}

Result<void> MsgRegistry::Send(MsgQueue& queue, IpcMessage& message, const Credentials& who,
                               int32_t pid) {
  const uint64_t bytes = message.data.size();
  const absl::MutexLock lock(&mu_);
  if (queue.removed) return Errno(EIDRM);
  TRY(CheckIpcAccess(queue.permissions, who, kIpcWrite));
  if (queue.bytes + bytes > queue.bytes_max || queue.messages.size() + 1 > queue.bytes_max)
    return Errno(EAGAIN);
  if (bytes_ + bytes + (messages_ + 1) * kMessageOverhead > kTotalBytesMax) return Errno(ENOMEM);
  queue.messages.push_back(std::move(message));
  queue.bytes += bytes;
  bytes_ += bytes;
  ++messages_;
  queue.last_sender = pid;
  queue.send_s = NowSeconds();
  queue.queue.Notify(POLLIN);
  return {};
}

Result<IpcMessage> MsgRegistry::Receive(MsgQueue& queue, const MsgSelector& selector,
                                        const Credentials& who, int32_t pid) {
  const absl::MutexLock lock(&mu_);
  if (queue.removed) return Errno(EIDRM);
  TRY(CheckIpcAccess(queue.permissions, who, kIpcRead));
  auto found = queue.messages.end();
  uint64_t position = 0;
  for (auto it = queue.messages.begin(); it != queue.messages.end(); ++it, ++position) {
    if (!Matches(*it, selector, position)) continue;
    if (selector.type >= 0 || selector.copy) {
      found = it;
      break;
    }
    if (found == queue.messages.end() || it->type < found->type) found = it;
  }
  if (found == queue.messages.end()) return Errno(EAGAIN);
  const uint64_t bytes = found->data.size();
  if (bytes > selector.bytes_max && !selector.truncate) return Errno(E2BIG);
  if (selector.copy) {
    if (bytes > selector.bytes_max) return Errno(EINVAL);
    return *found;
  }
  IpcMessage message = std::move(*found);
  queue.messages.erase(found);
  queue.bytes -= bytes;
  bytes_ -= bytes;
  --messages_;
  queue.last_receiver = pid;
  queue.receive_s = NowSeconds();
  queue.queue.Notify(POLLOUT);
  return message;
}

MsgStatus MsgRegistry::StatusOf(const MsgQueue& queue) {
  return {queue.permissions, queue.send_s,      queue.receive_s,
          queue.change_s,    queue.bytes,       queue.messages.size(),
          queue.bytes_max,   queue.last_sender, queue.last_receiver};
}

Result<MsgStatus> MsgRegistry::Status(int32_t id, bool by_index, bool any, const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<MsgQueue> queue =
      by_index ? TRY(table_.FindIndex(id)) : TRY(table_.Find(id));
  if (!any) TRY(CheckIpcAccess(queue->permissions, who, kIpcRead));
  return StatusOf(*queue);
}

Result<void> MsgRegistry::SetOwner(int32_t id, const IpcOwnerChange& change, uint64_t bytes_max,
                                   const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<MsgQueue> queue = TRY(table_.Find(id));
  TRY(CheckIpcOwner(queue->permissions, who));
  if (bytes_max > limits_.queue_bytes_max && !who.HasCapability(CAP_SYS_RESOURCE))
    return Errno(EPERM);
  TRY(ApplyIpcOwner(queue->permissions, change));
  queue->bytes_max = bytes_max;
  queue->change_s = NowSeconds();
  // Both rights and room may have changed for those who sleep.
  queue->queue.Notify(POLLIN | POLLOUT);
  return {};
}

Result<void> MsgRegistry::Remove(int32_t id, const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<MsgQueue> queue = TRY(table_.Find(id));
  TRY(CheckIpcOwner(queue->permissions, who));
  table_.Remove(*queue);
  queue->removed = true;
  bytes_ -= queue->bytes;
  messages_ -= queue->messages.size();
  queue->messages.clear();
  queue->queue.Notify(POLLIN | POLLOUT);
  return {};
}

MsgTotals MsgRegistry::Totals() const {
  const absl::MutexLock lock(&mu_);
  return {static_cast<int32_t>(table_.size()), std::max(table_.MaxIndex(), 0), messages_, bytes_};
}

std::vector<MsgStatus> MsgRegistry::All() const {
  const absl::MutexLock lock(&mu_);
  std::vector<MsgStatus> all;
  all.reserve(table_.size());
  for (const auto& [index, queue] : table_.objects()) all.push_back(StatusOf(*queue));
  return all;
}

MsgLimits MsgRegistry::limits() const {
  const absl::MutexLock lock(&mu_);
  return limits_;
}

void MsgRegistry::set_limits(const MsgLimits& limits) {
  const absl::MutexLock lock(&mu_);
  limits_ = limits;
}

int32_t MsgRegistry::next_id() const {
  const absl::MutexLock lock(&mu_);
  return table_.next_id();
}

void MsgRegistry::set_next_id(int32_t id) {
  const absl::MutexLock lock(&mu_);
  table_.set_next_id(id);
}

}  // namespace sentry
