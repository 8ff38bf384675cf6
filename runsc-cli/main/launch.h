#pragma once

// `runsc do`: starts gofer and sentry, then stands between them and the caller until the guest is
// done: signals and window sizes go in, the exit status comes out, and no process outlives the
// others.

#include <cstdint>

#include "runsc-cli/cmd/do.h"

namespace runsc {

// runsc's own failures, as a shell's users know them.
inline constexpr int kOwnFailure = 125;

// Returns the exit status. What goes wrong is said in one line on standard error.
int RunDo(const cmd::DoOptions& options, uint64_t start_ns);

}  // namespace runsc
