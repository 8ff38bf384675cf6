#pragma once

// Images of the extended state: their size on this CPU, Linux's initial image, and which bytes a
// guest may load. FpuSize() is in platform.h.

#include <cstdint>

#include "platform/base/result.h"
#include "platform/platform.h"

namespace platform {

// Byte offsets in an image.
inline constexpr size_t kFpuMxcsr = 24;
inline constexpr size_t kFpuMxcsrMask = 28;
inline constexpr size_t kFpuSoftware = 464;  // 48 bytes that the CPU ignores and Linux uses.
inline constexpr size_t kFpuSoftwareBytes = 48;
inline constexpr size_t kFpuHeader = 512;  // 64 bytes
inline constexpr size_t kFpuMinimum = 576;

// The components that guests may use: XCR0 without AMX, whose tiles do not fit and which Linux
// gives only to processes that ask (arch_prctl(ARCH_REQ_XCOMP_PERM)).
uint64_t FpuFeatures();
// The state of a new process.
const FpuState& InitialFpu();
// EINVAL if XRSTOR would refuse the header or MXCSR.
base::Result<void> CheckFpu(const FpuState& state);
// Makes an image that came from a guest loadable: unknown components are dropped. Puts into the
// software bytes what PTRACE_GETREGSET puts there, and clears what lies beyond FpuSize().
void NormalizeFpu(FpuState& state);

}  // namespace platform
