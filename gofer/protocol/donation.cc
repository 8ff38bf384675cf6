#include "gofer/protocol/donation.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace gofer {
namespace {

using base::Errno;
using base::Result;

// A peer that sends more has them cut off by the kernel, which closes the rest.
constexpr size_t kControlBytes = CMSG_SPACE(sizeof(int));

}  // namespace

Result<void> SendDonation(int socket, uint32_t request_id, int fd) {
  iovec data = {&request_id, sizeof(request_id)};
  alignas(cmsghdr) char control[kControlBytes] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  if (sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return base::LastErrno();
  return {};
}

Result<Donation> ReceiveDonation(int socket) {
  Donation donation;
  iovec data = {&donation.request_id, sizeof(donation.request_id)};
  alignas(cmsghdr) char control[kControlBytes] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return base::LastErrno() == EINTR ? Errno(EAGAIN) : base::LastErrno();
  if (got == 0) return Errno(EPIPE);
  size_t rights = 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
      donation.fd = base::Fd(fd);
      ++rights;
    }
  }
  const bool whole = got == sizeof(donation.request_id) && (message.msg_flags & MSG_TRUNC) == 0;
  // The kernel cuts off what this process has no room for.
  if (whole && rights == 0 && (message.msg_flags & MSG_CTRUNC) != 0) return donation;
  if (!whole || rights != 1 || (message.msg_flags & MSG_CTRUNC) != 0) return Errno(EBADMSG);
  return donation;
}

}  // namespace gofer
