#pragma once

// The tables that `runsc help` prints: made from what is in force, never written by hand. They are
// part of runsc-sentry, which has everything that they describe; runsc executes it for them and
// stays small.

#include <string>
#include <string_view>

namespace runsc {

// `topic` is "filters" (sentry, gofer, stub) or "syscalls" (one line per system call of the guest:
// number, name, support, note). Empty for any other.
std::string HelpTable(std::string_view topic);

}  // namespace runsc
