#pragma once

// How long an x86-64 instruction is and where control goes after it. Needed to find the padding
// behind the function that makes a system call: instructions are walked from the `syscall`, whose
// start is known, so there is no guessing where others start.
//
// The bytes are a guest's. Whatever is not known for certain (APX, XOP, 3DNow!, prefixes that Intel
// and AMD read differently) is refused, which costs a rewrite and nothing else.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace platform::rewrite {

inline constexpr size_t kInstructionBytesMax = 15;

enum class Flow : uint8_t {
  kNext,         // To the next instruction only, or away for good by a fault.
  kConditional,  // To `target` or the next one.
  kCall,         // To `target` and back.
  kCallFar,      // To an unknown place and back.
  kJump,         // To `target`.
  kLeave,        // To an unknown place: indirect jumps, returns, ud2, hlt, int3.
};

struct Instruction {
  uint8_t length = 0;
  Flow flow = Flow::kNext;
  bool is_nop = false;  // One of the fillers that compilers and assemblers emit, or int3.
  int32_t target = 0;   // Relative to the instruction's start.
};

// The instruction at the start of `bytes`. nullopt if it is cut off, invalid or not known.
std::optional<Instruction> Decode(std::span<const uint8_t> bytes);

}  // namespace platform::rewrite
