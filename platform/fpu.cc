#include "platform/fpu.h"

#include <cpuid.h>

#include <algorithm>
#include <cstring>

#include "platform/base/check.h"

namespace platform {
namespace {

constexpr uint64_t kAmx = (uint64_t{1} << 17) | (uint64_t{1} << 18);
constexpr uint64_t kPkru = uint64_t{1} << 9;
// Linux's init_pkru: access through key 0 only.
constexpr uint32_t kInitialPkru = 0x55555554;
constexpr uint16_t kInitialFcw = 0x37f;
constexpr uint32_t kInitialMxcsr = 0x1f80;
constexpr uint32_t kDefaultMxcsrMask = 0xffbf;

struct Leaf {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf Cpuid(uint32_t leaf, uint32_t subleaf) {
  Leaf result;
  __cpuid_count(leaf, subleaf, result.eax, result.ebx, result.ecx, result.edx);
  return result;
}

struct Description {
  uint64_t features = 3;
  size_t bytes = kFpuMinimum;
  uint32_t mxcsr_mask = kDefaultMxcsrMask;
  FpuState initial;
};

Description Describe() {
  Description result;
  constexpr uint32_t kOsxsave = 1u << 27;
  if ((Cpuid(1, 0).ecx & kOsxsave) != 0) {
    uint32_t low = 0, high = 0;
    asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    result.features = ((uint64_t{high} << 32) | low) & ~kAmx;
    for (uint32_t component = 2; component < 63; component++) {
      if ((result.features >> component & 1) == 0) continue;
      const Leaf leaf = Cpuid(13, component);
      result.bytes = std::max<size_t>(result.bytes, size_t{leaf.eax} + leaf.ebx);
    }
  }
  CHECK(result.bytes <= FpuState::kBytesMax);
  alignas(16) std::array<std::byte, 512> legacy{};
  asm volatile("fxsave %0" : "=m"(legacy));
  memcpy(&result.mxcsr_mask, &legacy[kFpuMxcsrMask], sizeof(result.mxcsr_mask));
  if (result.mxcsr_mask == 0) result.mxcsr_mask = kDefaultMxcsrMask;

  std::byte* image = result.initial.bytes.data();
  memcpy(image, &kInitialFcw, sizeof(kInitialFcw));
  memcpy(image + kFpuMxcsr, &kInitialMxcsr, sizeof(kInitialMxcsr));
  memcpy(image + kFpuMxcsrMask, &result.mxcsr_mask, sizeof(result.mxcsr_mask));
  memcpy(image + kFpuSoftware, &result.features, sizeof(result.features));
  if ((result.features & kPkru) != 0) {
    memcpy(image + Cpuid(13, 9).ebx, &kInitialPkru, sizeof(kInitialPkru));
    memcpy(image + kFpuHeader, &kPkru, sizeof(kPkru));
  }
  return result;
}

const Description& Cpu() {
  static const Description description = Describe();
  return description;
}

}  // namespace

size_t FpuSize() { return Cpu().bytes; }
uint64_t FpuFeatures() { return Cpu().features; }
const FpuState& InitialFpu() { return Cpu().initial; }

base::Result<void> CheckFpu(const FpuState& state) {
  std::array<uint64_t, 8> header;
  memcpy(header.data(), &state.bytes[kFpuHeader], sizeof(header));
  if ((header[0] & ~FpuFeatures()) != 0) return base::Errno(EINVAL);
  // Compacted images and what the architecture reserves.
  if (std::any_of(header.begin() + 1, header.end(), [](uint64_t word) { return word != 0; })) {
    return base::Errno(EINVAL);
  }
  uint32_t mxcsr = 0;
  memcpy(&mxcsr, &state.bytes[kFpuMxcsr], sizeof(mxcsr));
  if ((mxcsr & ~Cpu().mxcsr_mask) != 0) return base::Errno(EINVAL);
  return {};
}

void NormalizeFpu(FpuState& state) {
  const Description& cpu = Cpu();
  std::array<uint64_t, 8> header{};
  memcpy(header.data(), &state.bytes[kFpuHeader], sizeof(uint64_t));
  header[0] &= cpu.features;
  memcpy(&state.bytes[kFpuHeader], header.data(), sizeof(header));
  uint32_t mxcsr = 0;
  memcpy(&mxcsr, &state.bytes[kFpuMxcsr], sizeof(mxcsr));
  mxcsr &= cpu.mxcsr_mask;
  memcpy(&state.bytes[kFpuMxcsr], &mxcsr, sizeof(mxcsr));
  memset(&state.bytes[kFpuSoftware], 0, kFpuSoftwareBytes);
  memcpy(&state.bytes[kFpuSoftware], &cpu.features, sizeof(cpu.features));
  std::fill(state.bytes.begin() + static_cast<ptrdiff_t>(cpu.bytes), state.bytes.end(),
            std::byte{0});
}

}  // namespace platform
