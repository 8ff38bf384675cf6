#pragma once

// POSIX message queues (mq_overview(7)): a file system of queues, which mq_open(3) reaches by name
// and mount(8) can show.
//
// Nothing here sleeps: Send and Receive answer EAGAIN, and the handler waits in the file's queue.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/fs/synthetic/synthetic.h"
#include "sentry/kernel/wait_queue.h"

namespace sentry {

class Kernel;
class MessageQueueInode;
class ThreadGroup;

// /proc/sys/fs/mqueue, and what the queues of a sandbox and of its users take.
struct MqueueLimits {
  std::atomic<uint32_t> queues_max{256};
  std::atomic<uint32_t> messages_max{10}, messages_default{10};
  std::atomic<uint32_t> bytes_max{8192}, bytes_default{8192};

  // Of everybody, whatever else they may do: the messages are the sentry's memory.
  static constexpr uint64_t kTotalBytesMax = uint64_t{128} << 20;
  static constexpr uint32_t kHardQueuesMax = 4096;
  static constexpr uint32_t kHardMessagesMax = 65536;
  static constexpr uint32_t kHardBytesMax = 1 << 24;
  absl::Mutex mu;
  uint32_t queues ABSL_GUARDED_BY(mu) = 0;
  std::map<uint32_t, uint64_t> user_bytes ABSL_GUARDED_BY(mu);  // RLIMIT_MSGQUEUE
  std::atomic<uint64_t> message_bytes{0};
};

// What mq_getattr(3) tells and mq_open(3) asks for.
struct MqueueAttributes {
  int64_t messages_max = 0;
  int64_t bytes_max = 0;
  int64_t messages = 0;
};

class MqueueFileSystem final : public SyntheticFileSystem {
 public:
  static std::shared_ptr<MqueueFileSystem> Make(Kernel& kernel);
  explicit MqueueFileSystem(Kernel& kernel);

  // mq_open(2) after the copies; `flags` and `mode` are open(2)'s. EACCES, EEXIST, EINVAL, EMFILE,
  // ENOENT, ENOSPC.
  base::Result<FileRef> OpenQueue(Task& task, const std::string& name, uint32_t flags,
                                  uint32_t mode, const std::optional<MqueueAttributes>& attributes);
  // mq_unlink(2). EACCES, EPERM, ENOENT.
  base::Result<void> UnlinkQueue(Task& task, const std::string& name);

  MqueueLimits& limits() { return *limits_; }
  bool Revalidate(Inode& directory, std::string_view name, Inode& child) override;

 private:
  friend class MqueueDirectory;
  base::Result<std::shared_ptr<MessageQueueInode>> NewQueue(const Credentials& who,
                                                            uint64_t user_limit,
                                                            const CreateContext& context,
                                                            const MqueueAttributes& attributes);

  Kernel& kernel_;
  const std::shared_ptr<MqueueLimits> limits_;
  std::shared_ptr<class MqueueDirectory> directory_;
};

struct MqueueMessage {
  uint32_t priority = 0;
  std::vector<std::byte> data;
};

// Who mq_notify(2) tells of a message in an empty queue; once.
struct MqueueNotification {
  int32_t kind = 0;  // SIGEV_*
  int32_t signal = 0;
  uint64_t value = 0;
  std::weak_ptr<ThreadGroup> process;
  // SIGEV_THREAD: passes the last byte of the cookie to the process's netlink socket.
  std::function<void(uint8_t)> tell;
};

class MessageQueueInode final : public SyntheticInode {
 public:
  MessageQueueInode(SyntheticFileSystem& file_system, std::shared_ptr<MqueueLimits> limits,
                    const CreateContext& context, const MqueueAttributes& attributes,
                    uint32_t account);
  ~MessageQueueInode() override;

  base::Result<Attributes> GetAttributes() override;
  base::Result<void> SetAttributes(const AttributeChanges& changes) override;
  base::Result<std::shared_ptr<File>> Open(Task& task, const Path& path, uint32_t flags) override;

  const MqueueAttributes& shape() const { return shape_; }
  MqueueAttributes Now() const;
  base::Result<void> Send(Task& task, MqueueMessage& message);  // EAGAIN, ENOMEM
  base::Result<MqueueMessage> Receive();                        // EAGAIN
  // A receiver sleeps (then nobody is notified) / no longer.
  void AddReceiver() { receivers_.fetch_add(1); }
  void RemoveReceiver() { receivers_.fetch_sub(1); }
  base::Result<void> SetNotification(MqueueNotification notification);  // EBUSY
  // Of this process, if it is the one.
  void RemoveNotification(const ThreadGroup& process);
  std::string StatusText(Task& reader) const;
  PollMask Poll() const;
  WaitQueue& queue() { return queue_; }
  // What it counts for RLIMIT_MSGQUEUE.
  static uint64_t ChargeOf(const MqueueAttributes& attributes);

 private:
  void NotifyLocked(Task& sender) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::shared_ptr<MqueueLimits> limits_;
  const MqueueAttributes shape_;
  const uint32_t account_;
  std::atomic<int> receivers_{0};
  WaitQueue queue_;
  mutable absl::Mutex mu_;
  // By falling priority, oldest first in each.
  std::map<uint32_t, std::deque<std::vector<std::byte>>, std::greater<>> messages_
      ABSL_GUARDED_BY(mu_);
  uint64_t count_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::optional<MqueueNotification> notification_ ABSL_GUARDED_BY(mu_);
  AttributeChanges attributes_ ABSL_GUARDED_BY(mu_);
};

// An open queue. read(2) gives the status text.
class MqueueFile final : public File {
 public:
  MqueueFile(Path path, uint32_t flags, CredentialsRef credentials,
             std::shared_ptr<MessageQueueInode> queue);
  MessageQueueInode& queue_inode() const { return *inode_; }
  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;
  PollMask Poll(PollMask interest) override;
  WaitQueue* wait_queue() override { return &inode_->queue(); }
  bool seekable() const override { return true; }
  base::Result<void> OnClose(Task& task) override;

 private:
  const std::shared_ptr<MessageQueueInode> inode_;
};

// The directory of all queues.
class MqueueDirectory final : public SyntheticDirectory {
 public:
  explicit MqueueDirectory(MqueueFileSystem& file_system);
  base::Result<Attributes> GetAttributes() override;
  base::Result<InodeRef> Lookup(std::string_view name) override;
  base::Result<InodeRef> Create(std::string_view name, const CreateContext& context) override;
  base::Result<void> Unlink(std::string_view name, Inode& child) override;
  base::Result<std::vector<Entry>> List(Task& task) override;

  std::shared_ptr<MessageQueueInode> Find(std::string_view name);
  // EEXIST: somebody was faster.
  base::Result<void> Add(std::string_view name, std::shared_ptr<MessageQueueInode> queue);

 private:
  MqueueFileSystem& mqueue_;
  absl::Mutex mu_;
  std::map<std::string, std::shared_ptr<MessageQueueInode>, std::less<>> queues_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
