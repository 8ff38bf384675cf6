#pragma once

// <asm-generic/poll.h>, and what select(2)'s variants pass.

#include <cstdint>

namespace syscalls::abi {

struct Pollfd {
  int32_t fd = -1;
  uint16_t events = 0;
  uint16_t revents = 0;
};
// The sixth argument of pselect6(2).
struct SignalMaskArgument {
  uint64_t mask = 0;
  uint64_t bytes = 0;
};

}  // namespace syscalls::abi
