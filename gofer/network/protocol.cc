#include "gofer/network/protocol.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <type_traits>
#include <utility>

#include "platform/base/fd_message.h"

namespace gofer::network {
namespace {

using base::Errno;
using base::Result;

// All but the unused end of `data`.
template <typename T>
size_t WireBytes(const T& message) {
  return offsetof(T, data) + message.data_bytes;
}

template <typename T>
Result<void> Send(int socket, const T& message, int fd) {
  static_assert(std::is_trivially_copyable_v<T>);
  iovec part = {const_cast<T*>(&message), WireBytes(message)};
  base::FdRoom<1> room;
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (fd >= 0) base::PutFds(header, room, {&fd, 1});
  while (sendmsg(socket, &header, MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return base::LastErrno();
  }
  return {};
}

template <typename T>
Result<std::pair<T, base::Fd>> Receive(int socket) {
  T message;
  iovec part = {&message, sizeof(message)};
  base::FdRoom<1> room;
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  base::ExpectFds(header, room);
  ssize_t got;
  while ((got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC)) < 0) {
    if (errno != EINTR) return base::LastErrno();
  }
  base::Fd fd;
  base::TakeFds(header, [&fd](base::Fd received) { fd = std::move(received); });
  if (got == 0) return Errno(EPIPE);
  const auto bytes = static_cast<size_t>(got);
  if (bytes < offsetof(T, data) || (header.msg_flags & MSG_TRUNC) != 0 ||
      message.data_bytes > kDataBytesMax || bytes != WireBytes(message)) {
    return Errno(EBADMSG);
  }
  return std::pair<T, base::Fd>(message, std::move(fd));
}

}  // namespace

Result<void> SendRequest(int socket, const Request& request) { return Send(socket, request, -1); }

Result<Request> ReceiveRequest(int socket) {
  auto received = TRY(Receive<Request>(socket));
  if (received.second.valid()) return Errno(EBADMSG);
  return received.first;
}

Result<void> SendReply(int socket, const Reply& reply, int fd) { return Send(socket, reply, fd); }

Result<ReceivedReply> ReceiveReply(int socket) {
  auto received = TRY(Receive<Reply>(socket));
  return ReceivedReply{received.first, std::move(received.second)};
}

}  // namespace gofer::network
