#include "gofer/network/protocol.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <type_traits>
#include <utility>

namespace gofer::network {
namespace {

using base::Errno;
using base::Result;

// A peer that sends more has them cut off by the kernel, which closes the rest.
constexpr size_t kControlBytes = CMSG_SPACE(sizeof(int));

// All but the unused end of `data`.
template <typename T>
size_t WireBytes(const T& message) {
  return offsetof(T, data) + message.data_bytes;
}

template <typename T>
Result<void> Send(int socket, const T& message, int fd) {
  static_assert(std::is_trivially_copyable_v<T>);
  iovec part = {const_cast<T*>(&message), WireBytes(message)};
  alignas(cmsghdr) char control[kControlBytes] = {};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
  }
  while (sendmsg(socket, &header, MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return base::LastErrno();
  }
  return {};
}

base::Fd TakeDescriptor(msghdr& header) {
  base::Fd fd;
  for (cmsghdr* each = CMSG_FIRSTHDR(&header); each != nullptr; each = CMSG_NXTHDR(&header, each)) {
    if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int number;
      std::memcpy(&number, CMSG_DATA(each) + i * sizeof(int), sizeof(number));
      fd = base::Fd(number);
    }
  }
  return fd;
}

template <typename T>
Result<std::pair<T, base::Fd>> Receive(int socket) {
  T message;
  iovec part = {&message, sizeof(message)};
  alignas(cmsghdr) char control[kControlBytes] = {};
  msghdr header = {};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  ssize_t got;
  while ((got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC)) < 0) {
    if (errno != EINTR) return base::LastErrno();
  }
  base::Fd fd = TakeDescriptor(header);
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
