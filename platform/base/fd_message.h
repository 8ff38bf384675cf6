#pragma once

// Descriptors in the control data of a message (SCM_RIGHTS, unix(7)).

#include <sys/socket.h>

#include <cstddef>
#include <cstring>
#include <span>

#include "platform/base/fd.h"

namespace base {

// Room for the control data of a message with up to `kFdsMax` descriptors. Outlives the call.
template <size_t kFdsMax>
struct FdRoom {
  alignas(cmsghdr) char bytes[CMSG_SPACE(sizeof(int) * kFdsMax)] = {};
};

// For sendmsg(2). No more than the room is for; none: no control data.
template <size_t kFdsMax>
void PutFds(msghdr& message, FdRoom<kFdsMax>& room, std::span<const int> fds) {
  if (fds.empty()) return;
  message.msg_control = room.bytes;
  message.msg_controllen = CMSG_SPACE(fds.size_bytes());
  cmsghdr* const rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(fds.size_bytes());
  std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
}

// For recvmsg(2). A peer that sends more has them cut off by the kernel, which closes the rest.
template <size_t kFdsMax>
void ExpectFds(msghdr& message, FdRoom<kFdsMax>& room) {
  message.msg_control = room.bytes;
  message.msg_controllen = sizeof(room.bytes);
}

// Hands each received descriptor to `take(Fd)`; what it does not keep is closed.
template <typename Take>
void TakeFds(msghdr& message, Take take) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      take(Fd(fd));
    }
  }
}

}  // namespace base
