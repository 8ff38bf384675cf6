// POSIX message queues: mq_open(2) and the five that work on what it returns.

#include "syscalls/handlers/mqueue.h"

#include <fcntl.h>
#include <signal.h>

#include <array>
#include <cerrno>
#include <memory>
#include <optional>
#include <string>

#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/ipc/ipc_objects.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/socket/socket.h"
#include "syscalls/handlers/time_values.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::Deadline;
using sentry::MqueueAttributes;
using sentry::MqueueFile;
using sentry::Task;

namespace {

constexpr uint32_t kPrioritiesMax = 32768;  // MQ_PRIO_MAX
constexpr size_t kCookieBytes = 32;         // NOTIFY_COOKIE_LEN

// struct mq_attr and struct sigevent.
struct MqAttr {
  int64_t flags;
  int64_t maxmsg;
  int64_t msgsize;
  int64_t curmsgs;
  std::array<int64_t, 4> reserved;
};
struct Sigevent {
  uint64_t value;
  int32_t signo;
  int32_t notify;
  std::array<uint64_t, 6> rest;
};
static_assert(sizeof(Sigevent) == 64);

sentry::MqueueFileSystem& QueuesOf(Task& task) { return sentry::IpcObjectsOf(task).mqueue(); }

Result<std::string> NameFrom(Task& task, UserAddr name) {
  return task.memory().CopyInString(name, sentry::kPathBytesMax);
}

// EBADF for everything else. `hold` keeps it open.
Result<MqueueFile*> QueueFrom(const sentry::FileHold& hold) {
  auto* file = dynamic_cast<MqueueFile*>(&*hold);
  if (file == nullptr) return Errno(EBADF);
  return file;
}

// On the clock of the day.
Result<Deadline> DeadlineFrom(Task& task, UserAddr timeout) {
  if (timeout.is_null()) return Deadline::Never();
  const int64_t ns = TRY(ToNs(TRY(task.CopyIn(UserIn<abi::Timespec>(timeout)))));
  return DeadlineAt(task.kernel().clock(), CLOCK_REALTIME, ns);
}

// SIGEV_THREAD: libc waits on a netlink socket for the cookie that it hands over here.
Result<std::function<void(uint8_t)>> TellerFor(Task& task, const Sigevent& event) {
  std::array<std::byte, kCookieBytes> cookie;
  TRY(task.memory().CopyInExactly(UserAddr(event.value), cookie));
  const sentry::FileRef file = TRY(task.fds().GetForIo(event.signo));
  auto socket = std::dynamic_pointer_cast<sentry::Socket>(file);
  if (socket == nullptr) return Errno(ENOTSOCK);
  if (!socket->TakesKernelMessages()) return Errno(EINVAL);
  return std::function<void(uint8_t)>([socket, cookie](uint8_t reason) {
    std::array<std::byte, kCookieBytes> message = cookie;
    message.back() = std::byte{reason};
    socket->PushFromKernel(message);
  });
}

}  // namespace

Result<int32_t> MqOpen(Task& task, UserAddr name, int32_t flags, uint32_t mode,
                       UserAddr attributes) {
  std::optional<MqueueAttributes> wanted;
  if (!attributes.is_null()) {
    const MqAttr attr = TRY(task.CopyIn(UserIn<MqAttr>(attributes)));
    wanted = MqueueAttributes{attr.maxmsg, attr.msgsize, 0};
  }
  const std::string text = TRY(NameFrom(task, name));
  sentry::FdSlot slot = TRY(task.fds().Reserve((flags & O_CLOEXEC) != 0, task.fd_limit()));
  sentry::FileRef file =
      TRY(QueuesOf(task).OpenQueue(task, text, static_cast<uint32_t>(flags), mode, wanted));
  const int32_t number = slot.number();
  std::move(slot).Fill(std::move(file));
  return number;
}

Result<void> MqUnlink(Task& task, UserAddr name) {
  return QueuesOf(task).UnlinkQueue(task, TRY(NameFrom(task, name)));
}

Result<void> MqTimedsend(Task& task, int32_t fd, UserAddr data, uint64_t bytes, uint32_t priority,
                         UserAddr timeout) {
  const Deadline deadline = TRY(DeadlineFrom(task, timeout));
  if (priority >= kPrioritiesMax) return Errno(EINVAL);
  const sentry::FileHold hold = TRY(task.HoldFileForIo(fd));
  MqueueFile& file = *TRY(QueueFrom(hold));
  if (!file.writable()) return Errno(EBADF);
  sentry::MessageQueueInode& queue = file.queue_inode();
  if (bytes > static_cast<uint64_t>(queue.shape().bytes_max)) return Errno(EMSGSIZE);
  sentry::MqueueMessage message{priority, std::vector<std::byte>(static_cast<size_t>(bytes))};
  TRY(task.memory().CopyInExactly(data, message.data));
  return RetryUntilReady(task, &queue.queue(), sentry::kPollWritable, file.nonblocking(), deadline,
                         [&] { return queue.Send(task, message); });
}

Result<uint64_t> MqTimedreceive(Task& task, int32_t fd, UserAddr data, uint64_t bytes,
                                UserAddr priority, UserAddr timeout) {
  const Deadline deadline = TRY(DeadlineFrom(task, timeout));
  const sentry::FileHold hold = TRY(task.HoldFileForIo(fd));
  MqueueFile& file = *TRY(QueueFrom(hold));
  if (!file.readable()) return Errno(EBADF);
  sentry::MessageQueueInode& queue = file.queue_inode();
  if (bytes < static_cast<uint64_t>(queue.shape().bytes_max)) return Errno(EMSGSIZE);
  Result<sentry::MqueueMessage> received = queue.Receive();
  if (!received.ok() && received.error() == EAGAIN && !file.nonblocking()) {
    // From here on a message is this one's, and nobody is notified.
    queue.AddReceiver();
    received = RetryUntilReady(task, &queue.queue(), sentry::kPollReadable, false, deadline,
                               [&] { return queue.Receive(); });
    queue.RemoveReceiver();
  }
  const sentry::MqueueMessage message = TRY(std::move(received));
  // As on Linux, what cannot be told to the caller is lost.
  if (!priority.is_null()) TRY(task.CopyOut(UserOut<uint32_t>(priority), message.priority));
  TRY(task.memory().CopyOutExactly(data, message.data));
  return uint64_t{message.data.size()};
}

Result<void> MqNotify(Task& task, int32_t fd, UserAddr event) {
  sentry::MqueueNotification notification;
  if (!event.is_null()) {
    const Sigevent wanted = TRY(task.CopyIn(UserIn<Sigevent>(event)));
    if (wanted.notify != SIGEV_NONE && wanted.notify != SIGEV_SIGNAL &&
        wanted.notify != SIGEV_THREAD) {
      return Errno(EINVAL);
    }
    if (wanted.notify == SIGEV_SIGNAL && wanted.signo != 0 && !sentry::IsValidSignal(wanted.signo))
      return Errno(EINVAL);
    notification.kind = wanted.notify;
    notification.signal = wanted.signo;
    notification.value = wanted.value;
    notification.process = task.group_ref();
    if (wanted.notify == SIGEV_THREAD) notification.tell = TRY(TellerFor(task, wanted));
  }
  const sentry::FileHold hold = TRY(task.HoldFileForIo(fd));
  sentry::MessageQueueInode& queue = TRY(QueueFrom(hold))->queue_inode();
  if (event.is_null()) {
    queue.RemoveNotification(task.group());
    return {};
  }
  return queue.SetNotification(std::move(notification));
}

Result<void> MqGetsetattr(Task& task, int32_t fd, UserAddr wanted, UserAddr old) {
  std::optional<MqAttr> change;
  if (!wanted.is_null()) {
    change = TRY(task.CopyIn(UserIn<MqAttr>(wanted)));
    if ((change->flags & ~int64_t{O_NONBLOCK}) != 0) return Errno(EINVAL);
  }
  const sentry::FileHold hold = TRY(task.HoldFileForIo(fd));
  MqueueFile& file = *TRY(QueueFrom(hold));
  const MqueueAttributes now = file.queue_inode().Now();
  MqAttr answer{};
  answer.flags = file.flags() & O_NONBLOCK;
  answer.maxmsg = now.messages_max;
  answer.msgsize = now.bytes_max;
  answer.curmsgs = now.messages;
  if (change) {
    const uint32_t others = file.flags() & ~uint32_t{O_NONBLOCK};
    TRY(file.SetFlags(task, others | static_cast<uint32_t>(change->flags)));
  }
  if (!old.is_null()) TRY(task.CopyOut(UserOut<MqAttr>(old), answer));
  return {};
}

}  // namespace syscalls
