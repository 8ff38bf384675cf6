#pragma once

// How the processes of runsc that wait on a guest's behalf get their signals.

#include "platform/base/fd.h"

namespace runsc {

// Blocks all signals but the synchronous ones, which are crashes of this process's own, and returns
// a non-blocking signalfd(2) of them. Empty if the host has no descriptor left.
base::Fd TakeSignals();

}  // namespace runsc
