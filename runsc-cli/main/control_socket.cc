#include "runsc-cli/main/control_socket.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "platform/base/fd_message.h"

namespace runsc {
namespace {

struct Header {
  uint32_t kind;
  uint32_t text_bytes;
  int64_t value;
  uint32_t request;
  uint32_t reserved;
};

}  // namespace

absl::StatusOr<ControlEnds> CreateControlSocket() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return absl::InternalError(absl::StrCat("cannot create a socket pair: ", strerror(errno)));
  }
  return ControlEnds{base::Fd(ends[0]), base::Fd(ends[1])};
}

base::Result<void> SendFrame(int socket, FrameKind kind, int64_t value, std::string_view text,
                             uint32_t request, std::span<const int> fds) {
  text = text.substr(0, kFrameTextMax);
  fds = fds.first(std::min(fds.size(), kFrameFdsMax));
  Header header{static_cast<uint32_t>(kind), static_cast<uint32_t>(text.size()), value, request, 0};
  iovec parts[2] = {{&header, sizeof(header)}, {const_cast<char*>(text.data()), text.size()}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  base::FdRoom<kFrameFdsMax> room;
  base::PutFds(message, room, fds);
  while (sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    if (errno != EINTR) return base::LastErrno();
  }
  return {};
}

base::Result<Frame> ReceiveFrame(int socket, bool take_fds) {
  Header header{};
  char text[kFrameTextMax];
  iovec parts[2] = {{&header, sizeof(header)}, {text, sizeof(text)}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = 2;
  base::FdRoom<kFrameFdsMax> room;
  if (take_fds) base::ExpectFds(message, room);
  ssize_t got = -1;
  while ((got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC)) < 0) {
    if (errno == ECONNRESET) return base::Errno(EPIPE);
    if (errno != EINTR) return base::LastErrno();
  }
  Frame frame;
  base::TakeFds(message, [&frame](base::Fd fd) { frame.fds.push_back(std::move(fd)); });
  if (got == 0) return base::Errno(EPIPE);
  const auto bytes = static_cast<size_t>(got);
  if (bytes < sizeof(header) || header.text_bytes != bytes - sizeof(header))
    return base::Errno(EBADMSG);
  frame.kind = static_cast<FrameKind>(header.kind);
  frame.request = header.request;
  frame.value = header.value;
  frame.text.assign(text, header.text_bytes);
  return frame;
}

}  // namespace runsc
