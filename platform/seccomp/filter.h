#pragma once

// Which host system calls a process of ours may make, as a table that is also the documentation.
//
// Each row names one system call, what its arguments must look like, and why it is allowed. A table
// is compiled to a classic BPF program (compile.cc) and printed by `runsc help filters`. Rows with
// the same number are alternatives. See README.md for why libseccomp does not compile them.

#include <linux/filter.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "platform/base/result.h"

namespace platform::seccomp {

// What happens to a call: the SECCOMP_RET_* word.
struct Action {
  uint32_t value;
  friend constexpr bool operator==(Action, Action) = default;
};
inline constexpr Action kAllow{0x7fff0000U};        // SECCOMP_RET_ALLOW
inline constexpr Action kTrap{0x00030000U};         // SECCOMP_RET_TRAP: SIGSYS to the thread
inline constexpr Action kKillProcess{0x80000000U};  // SECCOMP_RET_KILL_PROCESS
// The call fails with `error` without being made. Precondition: 0 < error < 4096.
constexpr Action Fail(int error) { return {0x00050000U | static_cast<uint32_t>(error)}; }

// One condition on one argument. Comparisons are over all 64 bits unless the name says 32: the
// kernel drops the upper half of an `int`, so compare 32 bits only where the parameter is one.
struct Check {
  enum class Kind : uint8_t {
    kEquals,
    kEquals32,
    kNotEquals32,
    kMaskedEquals,
    kOneOf,
    kAtMost,
    kCallerIn,  // The instruction after the call lies in [value, limit).
  };
  static constexpr size_t kOneOfMax = 24;

  Kind kind;
  uint8_t argument = 0;
  uint64_t value = 0;
  uint64_t mask = 0;
  uint64_t limit = 0;
  std::vector<uint32_t> values;
};

// argument == value
Check Equals(int argument, uint64_t value);
Check Equals32(int argument, uint32_t value);
Check NotEquals32(int argument, uint32_t value);
// (argument & mask) == value
Check MaskedEquals(int argument, uint64_t mask, uint64_t value);
// None of `bits` is set.
inline Check Without(int argument, uint64_t bits) { return MaskedEquals(argument, bits, 0); }
// No bit outside `bits` is set.
inline Check Only(int argument, uint64_t bits) { return MaskedEquals(argument, ~bits, 0); }
// The argument is one of `values`, its upper half zero. At most kOneOfMax values.
Check OneOf(int argument, std::vector<uint32_t> values);
// argument <= maximum, unsigned.
Check AtMost(int argument, uint64_t maximum);
inline Check HighHalfZero(int argument) { return AtMost(argument, 0xffffffffU); }
// The address after the `syscall` instruction is in [begin, end). Precondition: begin < end.
Check CallerIn(uint64_t begin, uint64_t end);

struct Row {
  uint32_t number;
  std::string_view name;      // A literal.
  std::vector<Check> checks;  // All must hold.
  std::string_view reason;    // A literal; not empty.
  Action action = kAllow;
};

struct Filter {
  std::string_view process;  // A literal: "sentry", "gofer", ...
  std::vector<Row> rows;     // In any order.
  Action otherwise = kKillProcess;
};

// Longest program that the kernel takes.
inline constexpr size_t kInstructionsMax = BPF_MAXINSNS;

// Foreign architectures and x32 numbers always get `otherwise`, or kKillProcess if that is weaker.
// A table that breaks the preconditions above, or is too long, is a bug of ours (CHECK).
std::vector<sock_filter> Compile(const Filter& filter);

// Distinct system call numbers that the table lets through (rows that only fail do not count).
size_t CountAllowed(const Filter& filter);

// The table as text: a head line with the count, then one line per row, ascending by number.
std::string Describe(const Filter& filter);

// Sets no_new_privs and installs the program on every thread of the process, or changes nothing.
base::Result<void> Install(std::span<const sock_filter> program);

}  // namespace platform::seccomp
