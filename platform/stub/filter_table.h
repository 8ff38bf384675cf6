#pragma once

// The stub's system-call filters as data: one table for spawner and memory threads, one for threads
// that run guest code. They are printed by `runsc help filters` and compiled to BPF from the same
// rows.
//
// Whatever no row allows traps (SIGSYS). For a guest thread that is how its system calls reach the
// sentry; for the other two, where SIGSYS is blocked, it ends the process. A killing default is not
// possible: guest threads run under both filters, and the harsher verdict wins.

#include <linux/filter.h>

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace platform {

// Requires (argument & mask) == value, in all 64 bits. A mask of 0 requires nothing.
struct ArgCheck {
  uint8_t index = 0;
  uint64_t mask = 0;
  uint64_t value = 0;
};

// Several rows of one number are alternatives.
struct FilterRule {
  uint16_t number = 0;
  std::string_view name;
  std::array<ArgCheck, 3> checks{};
  std::string_view args;  // The checks in words, "" for none.
  std::string_view reason;
};

// Every row also requires the caller's instruction pointer to lie in the stub's text and the x86-64
// calling convention.
std::span<const FilterRule> StubProcessFilter();  // Spawner and memory threads; contains the next.
std::span<const FilterRule> StubGuestFilter();    // Threads that run guest code.

// The program for rules as above, with the instruction pointer confined to [text_start, text_end),
// which must not cross a 4 GiB boundary.
std::vector<sock_filter> CompileFilter(std::span<const FilterRule> rules, uint64_t text_start,
                                       uint64_t text_end);

}  // namespace platform
