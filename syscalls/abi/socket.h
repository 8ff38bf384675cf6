#pragma once

// Structures of the socket calls (include/linux/socket.h, 6.12).

#include <cstdint>

namespace syscalls::abi {

struct MessageHeader {  // struct user_msghdr
  uint64_t name = 0;
  int32_t name_length = 0;
  uint32_t pad0 = 0;
  uint64_t vectors = 0;
  uint64_t vector_count = 0;
  uint64_t control = 0;
  uint64_t control_length = 0;
  uint32_t flags = 0;
  uint32_t pad1 = 0;
};
static_assert(sizeof(MessageHeader) == 56);

struct MultipleMessageHeader {  // struct mmsghdr
  MessageHeader header;
  uint32_t length = 0;
  uint32_t pad = 0;
};
static_assert(sizeof(MultipleMessageHeader) == 64);

struct ControlHeader {  // struct cmsghdr
  uint64_t length = 0;  // With this header.
  int32_t level = 0;
  int32_t type = 0;
};
static_assert(sizeof(ControlHeader) == 16);

}  // namespace syscalls::abi
