#include "syscalls/handlers/socket.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserInOut;
using base::UserOut;
using sentry::Socket;
using sentry::SocketAddress;
using sentry::SocketRef;
using sentry::Task;

namespace {

constexpr int32_t kTypeMask = 0xf;
constexpr int32_t kTypeMax = 10;  // SOCK_PACKET
constexpr int32_t kTypeFlags = SOCK_CLOEXEC | SOCK_NONBLOCK;

struct NewSocket {
  const sentry::SocketFamily* family = nullptr;
  Socket::Kind kind;
  bool close_on_exec = false;
  bool nonblocking = false;
};

Result<NewSocket> Decode(int32_t family, int32_t type, int32_t protocol) {
  if ((type & ~kTypeMask & ~kTypeFlags) != 0) return Errno(EINVAL);
  const int32_t plain_type = type & kTypeMask;
  if (family < 0 || family >= AF_MAX) return Errno(EAFNOSUPPORT);
  if (plain_type > kTypeMax) return Errno(EINVAL);
  NewSocket result;
  result.family = sentry::FindSocketFamily(family);
  if (result.family == nullptr) return Errno(EAFNOSUPPORT);
  result.kind = {family, plain_type, protocol};
  result.close_on_exec = (type & SOCK_CLOEXEC) != 0;
  result.nonblocking = (type & SOCK_NONBLOCK) != 0;
  return result;
}

}  // namespace

Errno WaitError(Errno error, bool has_timeout) {
  if (error == ETIMEDOUT) return Errno(EAGAIN);
  if (error == base::kRestartSys && has_timeout) return Errno(EINTR);
  return error;
}

Result<SocketRef> GetSocket(Task& task, int32_t fd) {
  sentry::FileRef file = TRY(task.fds().GetForIo(fd));
  SocketRef socket = std::dynamic_pointer_cast<Socket>(std::move(file));
  if (socket == nullptr) return Errno(ENOTSOCK);
  return socket;
}

Result<SocketAddress> CopyInSocketAddress(Task& task, UserAddr address, int32_t length) {
  if (length < 0 || length > static_cast<int32_t>(sentry::kSocketAddressBytesMax))
    return Errno(EINVAL);
  SocketAddress result;
  result.length = static_cast<uint32_t>(length);
  if (length > 0) {
    TRY(task.memory().CopyInExactly(
        address, std::as_writable_bytes(std::span(result.bytes).first(result.length))));
  }
  return result;
}

Result<void> CopyOutSocketAddress(Task& task, const SocketAddress& from, UserAddr address,
                                  UserInOut<int32_t> length) {
  const int32_t room = TRY(task.CopyIn(length));
  if (room < 0) return Errno(EINVAL);
  const auto size = std::min(static_cast<uint32_t>(room), from.length);
  if (size > 0) TRY(task.memory().CopyOutExactly(address, std::as_bytes(from.view().first(size))));
  return task.CopyOut(length, static_cast<int32_t>(from.length));
}

Result<int32_t> SocketCall(Task& task, int32_t family, int32_t type, int32_t protocol) {
  const NewSocket wanted = TRY(Decode(family, type, protocol));
  SocketRef socket = TRY(wanted.family->Make(task, wanted.kind, wanted.nonblocking));
  return task.InstallFile(std::move(socket), wanted.close_on_exec);
}

// As pipe2: the numbers are told before the descriptors exist.
Result<void> Socketpair(Task& task, int32_t family, int32_t type, int32_t protocol,
                        UserOut<std::array<int32_t, 2>> out_fds) {
  const NewSocket wanted = TRY(Decode(family, type, protocol));
  sentry::FdSlot first = TRY(task.fds().Reserve(wanted.close_on_exec, task.fd_limit()));
  sentry::FdSlot second = TRY(task.fds().Reserve(wanted.close_on_exec, task.fd_limit()));
  auto made = wanted.family->MakePair(task, wanted.kind, wanted.nonblocking);
  if (!made.ok() && made.error() == EOPNOTSUPP) {
    // What is wrong with a single one comes first.
    TRY(wanted.family->Make(task, wanted.kind, wanted.nonblocking));
  }
  auto pair = TRY(std::move(made));
  TRY(task.CopyOut(out_fds, std::array<int32_t, 2>{first.number(), second.number()}));
  std::move(first).Fill(std::move(pair.first));
  std::move(second).Fill(std::move(pair.second));
  return {};
}

Result<void> BindCall(Task& task, int32_t fd, UserAddr address, int32_t length) {
  const SocketRef socket = TRY(GetSocket(task, fd));
  return socket->Bind(task, TRY(CopyInSocketAddress(task, address, length)));
}

Result<void> Listen(Task& task, int32_t fd, int32_t backlog) {
  const SocketRef socket = TRY(GetSocket(task, fd));
  return socket->Listen(task, backlog);
}

Result<int32_t> Accept4(Task& task, int32_t fd, UserAddr address, UserInOut<int32_t> length,
                        int32_t flags) {
  if ((flags & ~kTypeFlags) != 0) return Errno(EINVAL);
  const SocketRef socket = TRY(GetSocket(task, fd));
  sentry::FdSlot slot = TRY(task.fds().Reserve((flags & SOCK_CLOEXEC) != 0, task.fd_limit()));
  const int64_t timeout_ns = socket->options().receive_timeout_ns;
  auto accepted = RetryUntilReady(task, socket->wait_queue(), sentry::kPollReadable,
                                  socket->nonblocking(), socket->ReadDeadline(task), [&] {
                                    return socket->Accept(task, (flags & SOCK_NONBLOCK) != 0);
                                  });
  if (!accepted.ok()) return WaitError(accepted.error(), timeout_ns != 0);
  SocketRef connection = std::move(accepted).value();
  if (!address.is_null()) {
    // The peer may have gone already: then Linux says ECONNABORTED.
    const auto peer = connection->PeerAddress();
    if (!peer.ok()) return Errno(ECONNABORTED);
    TRY(CopyOutSocketAddress(task, peer.value(), address, length));
  }
  const int32_t number = slot.number();
  std::move(slot).Fill(std::move(connection));
  return number;
}

Result<int32_t> Accept(Task& task, int32_t fd, UserAddr address, UserInOut<int32_t> length) {
  return Accept4(task, fd, address, length, 0);
}

Result<void> Connect(Task& task, int32_t fd, UserAddr address, int32_t length) {
  const SocketRef socket = TRY(GetSocket(task, fd));
  const SocketAddress to = TRY(CopyInSocketAddress(task, address, length));
  const int64_t timeout_ns = socket->options().send_timeout_ns;
  const auto result =
      RetryUntilReady(task, socket->wait_queue(), sentry::kPollWritable, socket->nonblocking(),
                      socket->WriteDeadline(task), [&] { return socket->Connect(task, to); });
  if (!result.ok()) return WaitError(result.error(), timeout_ns != 0);
  return {};
}

Result<void> Getsockname(Task& task, int32_t fd, UserAddr address, UserInOut<int32_t> length) {
  const SocketRef socket = TRY(GetSocket(task, fd));
  return CopyOutSocketAddress(task, TRY(socket->LocalAddress()), address, length);
}

Result<void> Getpeername(Task& task, int32_t fd, UserAddr address, UserInOut<int32_t> length) {
  const SocketRef socket = TRY(GetSocket(task, fd));
  return CopyOutSocketAddress(task, TRY(socket->PeerAddress()), address, length);
}

Result<void> Shutdown(Task& task, int32_t fd, int32_t how) {
  const SocketRef socket = TRY(GetSocket(task, fd));
  if (how < SHUT_RD || how > SHUT_RDWR) return Errno(EINVAL);
  return socket->Shutdown(static_cast<sentry::ShutdownHow>(how));
}

Result<void> Setsockopt(Task& task, int32_t fd, int32_t level, int32_t name, UserAddr value,
                        int32_t length) {
  if (length < 0) return Errno(EINVAL);
  const SocketRef socket = TRY(GetSocket(task, fd));
  std::vector<uint8_t> bytes(
      std::min<size_t>(static_cast<size_t>(length), sentry::kOptionBytesMax));
  if (!bytes.empty())
    TRY(task.memory().CopyInExactly(value, std::as_writable_bytes(std::span(bytes))));
  return socket->SetOption(task, level, name, bytes);
}

Result<void> Getsockopt(Task& task, int32_t fd, int32_t level, int32_t name, UserAddr value,
                        UserInOut<int32_t> length) {
  const SocketRef socket = TRY(GetSocket(task, fd));
  const int32_t room = TRY(task.CopyIn(length));
  if (room < 0) return Errno(EINVAL);
  const std::vector<uint8_t> bytes = TRY(socket->GetOption(task, level, name));
  const size_t size = std::min(bytes.size(), static_cast<size_t>(room));
  if (size > 0)
    TRY(task.memory().CopyOutExactly(value, std::as_bytes(std::span(bytes).first(size))));
  return task.CopyOut(length, static_cast<int32_t>(size));
}

}  // namespace syscalls
