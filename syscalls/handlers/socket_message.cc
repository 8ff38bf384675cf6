// Sending and receiving, and the control messages that travel along (cmsg(3), unix(7)).

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/mm/io_buffer.h"
#include "syscalls/handlers/socket.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserInOut;
using base::UserOut;
using sentry::Deadline;
using sentry::FdSlot;
using sentry::FileRef;
using sentry::IoBuffer;
using sentry::PeerCredentials;
using sentry::ReceiveRequest;
using sentry::ReceiveResult;
using sentry::SendRequest;
using sentry::SocketAddress;
using sentry::SocketRef;
using sentry::Task;

namespace {

constexpr uint64_t kVectorsMax = 1024;         // UIO_MAXIOV
constexpr uint64_t kTransferMax = 0x7ffff000;  // MAX_RW_COUNT
constexpr uint64_t kControlBytesMax = 131072;  // net.core.optmem_max
constexpr uint32_t kMessagesMax = 1024;        // Of sendmmsg and recvmmsg.
constexpr uint64_t kControlAlign = 8;
constexpr uint32_t kCompatFlag = 0x80000000;  // MSG_CMSG_COMPAT: never from a 64-bit guest.

constexpr uint64_t AlignControl(uint64_t length) {
  return (length + kControlAlign - 1) / kControlAlign * kControlAlign;
}

struct Vector {  // struct iovec
  uint64_t base = 0;
  int64_t length = 0;
};

Result<IoBuffer> MessageBuffer(Task& task, uint64_t vectors, uint64_t count) {
  if (count > kVectorsMax) return Errno(EMSGSIZE);
  const auto raw =
      TRY(task.memory().CopyInArray<Vector>(UserAddr(vectors), static_cast<size_t>(count)));
  std::vector<sentry::UserRange> ranges;
  ranges.reserve(raw.size());
  uint64_t total = 0;
  for (const Vector& vector : raw) {
    if (vector.length < 0) return Errno(EINVAL);
    const uint64_t length = std::min(static_cast<uint64_t>(vector.length), kTransferMax - total);
    total += length;
    ranges.push_back({UserAddr(vector.base), length});
  }
  return IoBuffer(task.memory(), std::move(ranges));
}

// --- Sending.

Result<void> CheckClaimedCredentials(Task& task, const PeerCredentials& claimed) {
  const auto own = task.credentials();
  const bool pid_ok = claimed.pid == task.group().id() || own->HasOwnCapability(CAP_SYS_ADMIN);
  const bool uid_ok = claimed.uid == own->uid || claimed.uid == own->euid ||
                      claimed.uid == own->suid || own->HasOwnCapability(CAP_SETUID);
  const bool gid_ok = claimed.gid == own->gid || claimed.gid == own->egid ||
                      claimed.gid == own->sgid || own->HasOwnCapability(CAP_SETGID);
  if (!pid_ok || !uid_ok || !gid_ok) return Errno(EPERM);
  return {};
}

Result<void> AddRights(Task& task, std::span<const std::byte> data, sentry::Ancillary& ancillary) {
  const size_t count = data.size() / sizeof(int32_t);
  if (count + ancillary.files.size() > sentry::kRightsPerMessageMax) return Errno(EINVAL);
  for (size_t i = 0; i < count; ++i) {
    int32_t number = 0;
    std::memcpy(&number, data.data() + i * sizeof(number), sizeof(number));
    ancillary.files.push_back(TRY(task.fds().Get(number)));
  }
  return {};
}

// Parses what sendmsg(2) was given. Other levels are the protocol's to understand.
Result<sentry::Ancillary> ParseControl(Task& task, uint64_t control, uint64_t length) {
  sentry::Ancillary ancillary;
  if (control == 0 || length == 0) return ancillary;
  if (length > kControlBytesMax) return Errno(ENOBUFS);
  std::vector<std::byte> bytes(static_cast<size_t>(length));
  TRY(task.memory().CopyInExactly(UserAddr(control), bytes));
  std::span<const std::byte> rest(bytes);
  while (rest.size() >= sizeof(abi::ControlHeader)) {
    abi::ControlHeader header;
    std::memcpy(&header, rest.data(), sizeof(header));
    if (header.length < sizeof(header) || header.length > rest.size()) return Errno(EINVAL);
    const auto data = rest.first(static_cast<size_t>(header.length)).subspan(sizeof(header));
    rest = rest.subspan(
        std::min<size_t>(static_cast<size_t>(AlignControl(header.length)), rest.size()));
    if (header.level != SOL_SOCKET) {
      const auto* raw = reinterpret_cast<const uint8_t*>(data.data());
      ancillary.others.push_back({header.level, header.type, {raw, raw + data.size()}});
      continue;
    }
    if (header.type == SCM_RIGHTS) {
      TRY(AddRights(task, data, ancillary));
    } else if (header.type == SCM_CREDENTIALS) {
      PeerCredentials claimed;
      if (data.size() != sizeof(claimed)) return Errno(EINVAL);
      std::memcpy(&claimed, data.data(), sizeof(claimed));
      const sentry::UserNamespaceRef& users = task.own_credentials().user_namespace;
      claimed = {sentry::ToGlobal(task, claimed.pid), sentry::UidToGlobal(users, claimed.uid),
                 sentry::GidToGlobal(users, claimed.gid)};
      TRY(CheckClaimedCredentials(task, claimed));
      ancillary.credentials = claimed;
    } else {
      return Errno(EINVAL);
    }
  }
  return ancillary;
}

Result<uint64_t> DoSend(Task& task, const SocketRef& socket, SendRequest& request) {
  if (socket->is_path_only()) return Errno(EBADF);
  const bool nonblocking = socket->nonblocking() || (request.flags & MSG_DONTWAIT) != 0;
  const int64_t timeout_ns = socket->options().send_timeout_ns;
  const auto result =
      RetryUntilReady(task, socket->wait_queue(), sentry::kPollWritable, nonblocking,
                      socket->WriteDeadline(task), [&] { return socket->Send(task, request); });
  if (request.from.done() > 0 && socket->is_stream()) return uint64_t{request.from.done()};
  if (result.ok()) return static_cast<uint64_t>(result.value());
  if (result.error() == EPIPE && socket->kind().type != SOCK_DGRAM)
    RaiseBrokenPipe(task, request.flags);
  return WaitError(result.error(), timeout_ns != 0);
}

Result<uint64_t> SendOneMessage(Task& task, const SocketRef& socket,
                                const abi::MessageHeader& header, int32_t flags) {
  if (header.name_length < 0) return Errno(EINVAL);
  SocketAddress to;
  const bool has_name = header.name != 0 && header.name_length > 0;
  if (has_name) {
    const int32_t length =
        std::min(header.name_length, static_cast<int32_t>(sentry::kSocketAddressBytesMax));
    to = TRY(CopyInSocketAddress(task, UserAddr(header.name), length));
  }
  IoBuffer from = TRY(MessageBuffer(task, header.vectors, header.vector_count));
  SendRequest request{.from = from, .flags = flags, .to = has_name ? &to : nullptr};
  request.ancillary = TRY(ParseControl(task, header.control, header.control_length));
  return DoSend(task, socket, request);
}

// --- Receiving.

// Gathers control messages for a buffer of the guest's, cutting as Linux does.
class ControlWriter {
 public:
  explicit ControlWriter(uint64_t room) : room_(std::min(room, kControlBytesMax)) {}

  void Add(int32_t level, int32_t type, std::span<const std::byte> data) {
    const uint64_t left = room_ - bytes_.size();
    if (left < sizeof(abi::ControlHeader)) {
      cut_ = true;
      return;
    }
    uint64_t length = sizeof(abi::ControlHeader) + data.size();
    if (length > left) {
      cut_ = true;
      length = left;
    }
    const abi::ControlHeader header{length, level, type};
    const size_t start = bytes_.size();
    bytes_.resize(static_cast<size_t>(std::min(start + AlignControl(length), room_)));
    std::memcpy(bytes_.data() + start, &header, sizeof(header));
    const auto size = static_cast<size_t>(length - sizeof(header));
    if (size > 0) std::memcpy(bytes_.data() + start + sizeof(header), data.data(), size);
  }
  // Descriptors that the room is enough for.
  size_t RightsThatFit() const {
    const uint64_t left = room_ - bytes_.size();
    if (left < sizeof(abi::ControlHeader)) return 0;
    return static_cast<size_t>((left - sizeof(abi::ControlHeader)) / sizeof(int32_t));
  }
  void MarkCut() { cut_ = true; }
  bool cut() const { return cut_; }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  const uint64_t room_;
  std::vector<std::byte> bytes_;
  bool cut_ = false;
};

// Descriptors received, reserved but not visible until the guest has been told their numbers.
struct ReceivedRights {
  std::vector<FdSlot> slots;
  std::vector<FileRef> files;
  void Install() {
    for (size_t i = 0; i < slots.size(); ++i) std::move(slots[i]).Fill(std::move(files[i]));
  }
};

ReceivedRights AddRightsMessage(Task& task, ControlWriter& writer, std::vector<FileRef> files,
                                bool close_on_exec) {
  ReceivedRights rights;
  if (files.empty()) return rights;
  const size_t count = std::min(files.size(), writer.RightsThatFit());
  std::vector<int32_t> numbers;
  for (size_t i = 0; i < count; ++i) {
    auto slot = task.fds().Reserve(close_on_exec, task.fd_limit());
    // No more numbers: the rest is lost, and the guest is told that something is missing.
    if (!slot.ok()) break;
    numbers.push_back(slot.value().number());
    rights.slots.push_back(std::move(slot).value());
    rights.files.push_back(std::move(files[i]));
  }
  if (!numbers.empty()) writer.Add(SOL_SOCKET, SCM_RIGHTS, std::as_bytes(std::span(numbers)));
  if (numbers.size() < files.size()) writer.MarkCut();
  return rights;
}

struct Received {
  ReceiveResult result;
  uint64_t value = 0;  // What the call returns.
};

// One receive, waiting as the socket and `flags` say; for MSG_WAITALL as many as fill the buffer.
Result<Received> DoReceive(Task& task, const SocketRef& socket, IoBuffer& to, int32_t flags) {
  if (socket->is_path_only()) return Errno(EBADF);
  const bool nonblocking =
      socket->nonblocking() || (flags & MSG_DONTWAIT) != 0 || (flags & MSG_ERRQUEUE) != 0;
  const int64_t timeout_ns = socket->options().receive_timeout_ns;
  const Deadline deadline = socket->ReadDeadline(task);
  const bool all = (flags & MSG_WAITALL) != 0 && (flags & MSG_PEEK) == 0 && socket->is_stream();
  ReceiveRequest request{to, flags};
  Received received;
  bool first = true;
  while (true) {
    auto result = RetryUntilReady(task, socket->wait_queue(), sentry::kPollReadable, nonblocking,
                                  deadline, [&] { return socket->Receive(task, request); });
    if (!result.ok()) {
      if (first) return WaitError(result.error(), timeout_ns != 0);
      break;
    }
    const size_t count = result.value().bytes;
    if (first) {
      received.result = std::move(result).value();
    } else {
      received.result.bytes += count;
      received.result.full_bytes += count;
      // Rights that come with later bytes are those bytes': the loop ends with them.
      auto& files = result.value().ancillary.files;
      received.result.ancillary.files = std::move(files);
    }
    first = false;
    if (!all || count == 0 || to.remaining() == 0 || !received.result.ancillary.files.empty())
      break;
  }
  const bool report_full = (flags & MSG_TRUNC) != 0 && !socket->is_stream();
  received.value = report_full ? received.result.full_bytes : received.result.bytes;
  return received;
}

Result<uint64_t> ReceiveOneMessage(Task& task, const SocketRef& socket,
                                   UserInOut<abi::MessageHeader> pointer, int32_t flags) {
  abi::MessageHeader header = TRY(task.CopyIn(pointer));
  if (header.name_length < 0) return Errno(EINVAL);
  IoBuffer to = TRY(MessageBuffer(task, header.vectors, header.vector_count));
  Received received = TRY(DoReceive(task, socket, to, flags));
  ReceiveResult& result = received.result;

  ControlWriter control(header.control == 0 ? 0 : header.control_length);
  if (result.ancillary.credentials) {
    const PeerCredentials credentials =
        sentry::CredentialsSeenBy(task, *result.ancillary.credentials);
    control.Add(SOL_SOCKET, SCM_CREDENTIALS, std::as_bytes(std::span(&credentials, 1)));
  }
  for (const sentry::ControlMessage& other : result.ancillary.others) {
    control.Add(other.level, other.type, std::as_bytes(std::span(other.data)));
  }
  ReceivedRights rights = AddRightsMessage(task, control, std::move(result.ancillary.files),
                                           (flags & MSG_CMSG_CLOEXEC) != 0);

  if (!control.bytes().empty())
    TRY(task.memory().CopyOutExactly(UserAddr(header.control), control.bytes()));
  if (header.name != 0) {
    const auto size = std::min(static_cast<uint32_t>(header.name_length), result.from.length);
    if (size > 0) {
      TRY(task.memory().CopyOutExactly(UserAddr(header.name),
                                       std::as_bytes(result.from.view().first(size))));
    }
    header.name_length = static_cast<int32_t>(result.from.length);
  }
  header.control_length = control.bytes().size();
  header.flags = static_cast<uint32_t>(result.flags | (flags & MSG_CMSG_CLOEXEC) |
                                       (control.cut() ? MSG_CTRUNC : 0));
  TRY(task.CopyOut(pointer, header));
  rights.Install();
  return received.value;
}

constexpr uint64_t MessageAt(UserAddr messages, uint64_t index) {
  return messages.value() + index * sizeof(abi::MultipleMessageHeader);
}
constexpr uint64_t LengthAt(UserAddr messages, uint64_t index) {
  return MessageAt(messages, index) + offsetof(abi::MultipleMessageHeader, length);
}

}  // namespace

Result<uint64_t> Sendto(Task& task, int32_t fd, UserAddr buffer, uint64_t size, int32_t flags,
                        UserAddr address, int32_t length) {
  const SocketRef socket = TRY(GetSocket(task, fd));
  SocketAddress to;
  if (!address.is_null()) to = TRY(CopyInSocketAddress(task, address, length));
  IoBuffer from(task.memory(), buffer, std::min(size, kTransferMax));
  SendRequest request{
      .from = from, .flags = flags, .to = address.is_null() || length == 0 ? nullptr : &to};
  return DoSend(task, socket, request);
}

Result<uint64_t> Recvfrom(Task& task, int32_t fd, UserAddr buffer, uint64_t size, int32_t flags,
                          UserAddr address, UserInOut<int32_t> length) {
  const SocketRef socket = TRY(GetSocket(task, fd));
  IoBuffer to(task.memory(), buffer, std::min(size, kTransferMax));
  const Received received = TRY(DoReceive(task, socket, to, flags));
  if (!address.is_null()) TRY(CopyOutSocketAddress(task, received.result.from, address, length));
  return received.value;
}

Result<uint64_t> Sendmsg(Task& task, int32_t fd, UserIn<abi::MessageHeader> message,
                         int32_t flags) {
  if ((static_cast<uint32_t>(flags) & kCompatFlag) != 0) return Errno(EINVAL);
  const SocketRef socket = TRY(GetSocket(task, fd));
  return SendOneMessage(task, socket, TRY(task.CopyIn(message)), flags);
}

Result<uint64_t> Recvmsg(Task& task, int32_t fd, UserInOut<abi::MessageHeader> message,
                         int32_t flags) {
  if ((static_cast<uint32_t>(flags) & kCompatFlag) != 0) return Errno(EINVAL);
  const SocketRef socket = TRY(GetSocket(task, fd));
  return ReceiveOneMessage(task, socket, message, flags);
}

// Both return how many messages went through, if any did: the error is found again by the next
// call.
Result<uint64_t> Sendmmsg(Task& task, int32_t fd, UserAddr messages, uint32_t count,
                          int32_t flags) {
  if ((static_cast<uint32_t>(flags) & kCompatFlag) != 0) return Errno(EINVAL);
  const SocketRef socket = TRY(GetSocket(task, fd));
  uint64_t done = 0;
  for (const uint32_t limit = std::min(count, kMessagesMax); done < limit; ++done) {
    const auto send = [&]() -> Result<void> {
      const auto header =
          TRY(task.CopyIn(UserIn<abi::MessageHeader>(UserAddr(MessageAt(messages, done)))));
      const uint64_t sent = TRY(SendOneMessage(task, socket, header, flags));
      return task.CopyOut(UserOut<uint32_t>(UserAddr(LengthAt(messages, done))),
                          static_cast<uint32_t>(sent));
    };
    const auto result = send();
    if (result.ok()) continue;
    if (done == 0) return result.error();
    break;
  }
  return done;
}

Result<uint64_t> Recvmmsg(Task& task, int32_t fd, UserAddr messages, uint32_t count, int32_t flags,
                          UserInOut<abi::Timespec> timeout) {
  if ((static_cast<uint32_t>(flags) & kCompatFlag) != 0) return Errno(EINVAL);
  const sentry::Clock& clock = task.kernel().clock();
  int64_t end_ns = std::numeric_limits<int64_t>::max();
  if (!timeout.is_null()) {
    const abi::Timespec wait = TRY(task.CopyIn(timeout));
    constexpr int64_t kSecondNs = 1'000'000'000;
    if (wait.tv_sec < 0 || wait.tv_nsec < 0 || wait.tv_nsec >= kSecondNs) return Errno(EINVAL);
    constexpr int64_t kSecondsMax = int64_t{1} << 32;
    end_ns = clock.MonotonicNs() + std::min(wait.tv_sec, kSecondsMax) * kSecondNs + wait.tv_nsec;
  }
  const SocketRef socket = TRY(GetSocket(task, fd));
  uint64_t done = 0;
  for (const uint32_t limit = std::min(count, kMessagesMax); done < limit; ++done) {
    const bool wait_for_one = (flags & MSG_WAITFORONE) != 0;
    const int32_t now_flags =
        (flags & ~MSG_WAITFORONE) | (wait_for_one && done > 0 ? MSG_DONTWAIT : 0);
    const auto receive = [&]() -> Result<void> {
      const UserInOut<abi::MessageHeader> pointer{UserAddr(MessageAt(messages, done))};
      const uint64_t size = TRY(ReceiveOneMessage(task, socket, pointer, now_flags));
      return task.CopyOut(UserOut<uint32_t>(UserAddr(LengthAt(messages, done))),
                          static_cast<uint32_t>(size));
    };
    const auto result = receive();
    if (!result.ok()) {
      if (done == 0) return result.error();
      break;
    }
    // Looked at between messages only, as in Linux (recvmmsg(2), BUGS).
    if (clock.MonotonicNs() >= end_ns) {
      ++done;
      break;
    }
  }
  return done;
}

}  // namespace syscalls
