#include "gofer/protocol/donation.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <utility>

#include "platform/base/fd_message.h"

namespace gofer {

using base::Errno;
using base::Result;

Result<void> SendDonation(int socket, uint32_t request_id, int fd) {
  iovec data = {&request_id, sizeof(request_id)};
  base::FdRoom<1> room;
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  base::PutFds(message, room, {&fd, 1});
  if (sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return base::LastErrno();
  return {};
}

Result<Donation> ReceiveDonation(int socket) {
  Donation donation;
  iovec data = {&donation.request_id, sizeof(donation.request_id)};
  base::FdRoom<1> room;
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  base::ExpectFds(message, room);
  const ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return base::LastErrno() == EINTR ? Errno(EAGAIN) : base::LastErrno();
  if (got == 0) return Errno(EPIPE);
  size_t rights = 0;
  base::TakeFds(message, [&](base::Fd fd) {
    donation.fd = std::move(fd);
    ++rights;
  });
  const bool whole = got == sizeof(donation.request_id) && (message.msg_flags & MSG_TRUNC) == 0;
  // The kernel cuts off what this process has no room for.
  if (whole && rights == 0 && (message.msg_flags & MSG_CTRUNC) != 0) return donation;
  if (!whole || rights != 1 || (message.msg_flags & MSG_CTRUNC) != 0) return Errno(EBADMSG);
  return donation;
}

}  // namespace gofer
