// The queues. Sizes, order of checks and the moment of notification are Linux's (ipc/mqueue.c).

#include "sentry/fs/mqueue/mqueue.h"

#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/mm/io_buffer.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr uint64_t kNodeBytes = 48;      // Of Linux's tree of priorities.
constexpr uint64_t kMessageBytes = 48;   // struct msg_msg
constexpr uint64_t kPriorities = 32768;  // MQ_PRIO_MAX
constexpr uint8_t kWokeUp = 1;           // NOTIFY_WOKENUP
constexpr uint8_t kRemoved = 2;          // NOTIFY_REMOVED

}  // namespace

uint64_t MessageQueueInode::ChargeOf(const MqueueAttributes& attributes) {
  const auto messages = static_cast<uint64_t>(attributes.messages_max);
  return messages * static_cast<uint64_t>(attributes.bytes_max) + messages * kMessageBytes +
         std::min(messages, kPriorities) * kNodeBytes;
}

MessageQueueInode::MessageQueueInode(SyntheticFileSystem& file_system,
                                     std::shared_ptr<MqueueLimits> limits,
                                     const CreateContext& context,
                                     const MqueueAttributes& attributes, uint32_t account)
    : SyntheticInode(file_system, S_IFREG | context.mode),
      limits_(std::move(limits)),
      shape_(attributes),
      account_(account) {
  attributes_.mode = context.mode & 0777;
  attributes_.uid = context.uid;
  attributes_.gid = context.gid;
}

MessageQueueInode::~MessageQueueInode() {
  {
    const absl::MutexLock lock(&mu_);
    limits_->message_bytes.fetch_sub(bytes_, std::memory_order_relaxed);
  }
  const absl::MutexLock lock(&limits_->mu);
  --limits_->queues;
  const auto account = limits_->user_bytes.find(account_);
  if (account == limits_->user_bytes.end()) return;
  account->second -= std::min(account->second, ChargeOf(shape_));
  if (account->second == 0) limits_->user_bytes.erase(account);
}

Result<Attributes> MessageQueueInode::GetAttributes() {
  constexpr uint64_t kStatusBytes = 80;  // FILENT_SIZE
  Attributes attributes = TRY(SyntheticInode::GetAttributes());
  attributes.size = kStatusBytes;
  const absl::MutexLock lock(&mu_);
  attributes.mode = S_IFREG | *attributes_.mode;
  attributes.uid = *attributes_.uid;
  attributes.gid = *attributes_.gid;
  if (attributes_.atime) attributes.atime = *attributes_.atime;
  if (attributes_.mtime) attributes.mtime = *attributes_.mtime;
  return attributes;
}

Result<void> MessageQueueInode::SetAttributes(const AttributeChanges& changes) {
  const absl::MutexLock lock(&mu_);
  if (changes.mode) attributes_.mode = *changes.mode & 07777;
  if (changes.uid) attributes_.uid = changes.uid;
  if (changes.gid) attributes_.gid = changes.gid;
  if (changes.atime) attributes_.atime = changes.atime;
  if (changes.mtime) attributes_.mtime = changes.mtime;
  return {};
}

Result<std::shared_ptr<File>> MessageQueueInode::Open(Task& task, const Path& path,
                                                      uint32_t flags) {
  return FileRef(std::make_shared<MqueueFile>(
      path, flags, task.credentials(),
      std::static_pointer_cast<MessageQueueInode>(shared_from_this())));
}

MqueueAttributes MessageQueueInode::Now() const {
  const absl::MutexLock lock(&mu_);
  MqueueAttributes now = shape_;
  now.messages = static_cast<int64_t>(count_);
  return now;
}

Result<void> MessageQueueInode::Send(Task& task, MqueueMessage& message) {
  const uint64_t bytes = message.data.size() + kMessageBytes;
  const absl::MutexLock lock(&mu_);
  if (count_ >= static_cast<uint64_t>(shape_.messages_max)) return Errno(EAGAIN);
  if (limits_->message_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes >
      MqueueLimits::kTotalBytesMax) {
    limits_->message_bytes.fetch_sub(bytes, std::memory_order_relaxed);
    return Errno(ENOMEM);
  }
  bytes_ += bytes;
  messages_[message.priority].push_back(std::move(message.data));
  if (count_++ == 0 && receivers_.load() == 0) NotifyLocked(task);
  queue_.Notify(kPollReadable);
  return {};
}

Result<MqueueMessage> MessageQueueInode::Receive() {
  const absl::MutexLock lock(&mu_);
  const auto highest = messages_.begin();
  if (highest == messages_.end()) return Errno(EAGAIN);
  MqueueMessage message{highest->first, std::move(highest->second.front())};
  highest->second.pop_front();
  if (highest->second.empty()) messages_.erase(highest);
  --count_;
  const uint64_t bytes = message.data.size() + kMessageBytes;
  bytes_ -= bytes;
  limits_->message_bytes.fetch_sub(bytes, std::memory_order_relaxed);
  queue_.Notify(kPollWritable);
  return message;
}

void MessageQueueInode::NotifyLocked(Task& sender) {
  const std::optional<MqueueNotification> told = std::exchange(notification_, std::nullopt);
  if (!told) return;
  if (told->kind == SIGEV_THREAD && told->tell) told->tell(kWokeUp);
  const std::shared_ptr<ThreadGroup> process = told->process.lock();
  if (told->kind != SIGEV_SIGNAL || process == nullptr) return;
  SignalInfo info;
  info.signal = told->signal;
  info.code = SI_MESGQ;
  info.pid = sender.group().id();
  info.uid = sender.own_credentials().uid;
  info.value = told->value;
  // A full queue of signals loses this one, as on Linux.
  if (told->signal != 0) (void)process->SendSignal(info);
}

Result<void> MessageQueueInode::SetNotification(MqueueNotification notification) {
  const absl::MutexLock lock(&mu_);
  if (notification_ && notification_->process.lock() != nullptr) return Errno(EBUSY);
  notification_ = std::move(notification);
  return {};
}

void MessageQueueInode::RemoveNotification(const ThreadGroup& process) {
  const absl::MutexLock lock(&mu_);
  if (!notification_ || notification_->process.lock().get() != &process) return;
  if (notification_->kind == SIGEV_THREAD && notification_->tell) notification_->tell(kRemoved);
  notification_.reset();
}

std::string MessageQueueInode::StatusText(Task&) const {
  const absl::MutexLock lock(&mu_);
  uint64_t bytes = 0;
  for (const auto& [priority, messages] : messages_) {
    for (const auto& data : messages) bytes += data.size();
  }
  const std::shared_ptr<ThreadGroup> process =
      notification_ ? notification_->process.lock() : nullptr;
  const bool signals = process != nullptr && notification_->kind == SIGEV_SIGNAL;
  char text[128];
  std::snprintf(text, sizeof(text), "QSIZE:%-10llu NOTIFY:%-5d SIGNO:%-5d NOTIFY_PID:%-6d\n",
                static_cast<unsigned long long>(bytes),
                process != nullptr ? notification_->kind : 0, signals ? notification_->signal : 0,
                process != nullptr ? process->id() : 0);
  return text;
}

PollMask MessageQueueInode::Poll() const {
  const absl::MutexLock lock(&mu_);
  PollMask mask = 0;
  if (count_ > 0) mask |= kPollReadable;
  if (count_ < static_cast<uint64_t>(shape_.messages_max)) mask |= kPollWritable;
  return mask;
}

MqueueFile::MqueueFile(Path path, uint32_t flags, CredentialsRef credentials,
                       std::shared_ptr<MessageQueueInode> queue)
    : File(std::move(path), flags, std::move(credentials)), inode_(std::move(queue)) {}

Result<size_t> MqueueFile::Read(Task& task, IoBuffer& to, uint64_t* offset) {
  const std::string text = inode_->StatusText(task);
  if (*offset >= text.size()) return size_t{0};
  const size_t count =
      TRY(to.CopyOut(std::as_bytes(std::span(text)).subspan(static_cast<size_t>(*offset))));
  *offset += count;
  return count;
}

PollMask MqueueFile::Poll(PollMask interest) { return inode_->Poll() & (interest | kPollAlways); }

Result<void> MqueueFile::OnClose(Task& task) {
  inode_->RemoveNotification(task.group());
  return File::OnClose(task);
}

}  // namespace sentry
