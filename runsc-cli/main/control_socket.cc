#include "runsc-cli/main/control_socket.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace runsc {
namespace {

struct Header {
  uint32_t kind;
  uint32_t text_bytes;
  int64_t value;
};

}  // namespace

absl::StatusOr<ControlEnds> CreateControlSocket() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::InternalError(absl::StrCat("cannot create a socket pair: ", strerror(errno)));
  }
  return ControlEnds{base::Fd(ends[0]), base::Fd(ends[1])};
}

base::Result<void> SendFrame(int socket, FrameKind kind, int64_t value, std::string_view text) {
  text = text.substr(0, kFrameTextMax);
  Header header{static_cast<uint32_t>(kind), static_cast<uint32_t>(text.size()), value};
  iovec parts[2] = {{&header, sizeof(header)}, {const_cast<char*>(text.data()), text.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  while (sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    if (errno != EINTR) return base::LastErrno();
  }
  return {};
}

base::Result<Frame> ReceiveFrame(int socket) {
  Header header{};
  char text[kFrameTextMax];
  iovec parts[2] = {{&header, sizeof(header)}, {text, sizeof(text)}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  ssize_t got = -1;
  while ((got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) < 0) {
    if (errno == ECONNRESET) return base::Errno(EPIPE);
    if (errno != EINTR) return base::LastErrno();
  }
  if (got == 0) return base::Errno(EPIPE);
  const auto bytes = static_cast<size_t>(got);
  // No control buffer was offered, so descriptors that a peer sends are dropped by the kernel.
  if (bytes < sizeof(header) || header.text_bytes != bytes - sizeof(header))
    return base::Errno(EBADMSG);
  return Frame{static_cast<FrameKind>(header.kind), header.value,
               std::string(text, header.text_bytes)};
}

}  // namespace runsc
