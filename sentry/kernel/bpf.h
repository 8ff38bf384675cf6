#pragma once

// Classic BPF, as seccomp(2) filters are written in: programs of 32-bit instructions that read a
// small block of data and return a word. A program comes from the guest: Check says whether it
// ends, stays inside its memory and reads nothing unset; Run then needs no further checks.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "platform/base/result.h"

namespace sentry {

// struct sock_filter.
struct BpfInstruction {
  uint16_t code = 0;
  uint8_t jump_true = 0;
  uint8_t jump_false = 0;
  uint32_t k = 0;
};
static_assert(sizeof(BpfInstruction) == 8);

inline constexpr size_t kBpfInstructionsMax = 4096;
// struct seccomp_data, as 32-bit words.
inline constexpr size_t kSeccompDataWords = 16;
using SeccompWords = std::array<uint32_t, kSeccompDataWords>;

// EINVAL for what a seccomp filter may not contain (Linux: bpf_check_classic,
// seccomp_check_filter).
base::Result<void> CheckSeccompProgram(std::span<const BpfInstruction> program);

// Precondition: the program passed the check.
uint32_t RunSeccompProgram(std::span<const BpfInstruction> program, const SeccompWords& data);

// What the program returns for system call `number` of `architecture` if that depends on nothing
// else: true and *verdict, or false. Precondition: as above.
bool VerdictByNumber(std::span<const BpfInstruction> program, uint32_t number,
                     uint32_t architecture, uint32_t* verdict);

}  // namespace sentry
