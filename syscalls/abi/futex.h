#pragma once

// <linux/futex.h>

#include <cstdint>

namespace syscalls::abi {

struct FutexWaitv {
  uint64_t val = 0;
  uint64_t uaddr = 0;
  uint32_t flags = 0;
  uint32_t reserved = 0;
};
inline constexpr uint32_t kFutex2SizeU32 = 2;
inline constexpr uint32_t kFutex2Private = 128;
inline constexpr uint64_t kRobustListHeadBytes = 24;

}  // namespace syscalls::abi
