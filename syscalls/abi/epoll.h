#pragma once

// <linux/eventpoll.h>

#include <cstdint>

namespace syscalls::abi {

// Packed on x86-64.
struct [[gnu::packed]] EpollEvent {
  uint32_t events = 0;
  uint64_t data = 0;
};
static_assert(sizeof(EpollEvent) == 12);

}  // namespace syscalls::abi
