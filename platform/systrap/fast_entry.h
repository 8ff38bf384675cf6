#pragma once

// The registers of a guest thread that a signal caught in the stub's fast entry, where they are
// being moved around: there the thread is as if it had made its system call.

#include "platform/platform.h"
#include "platform/stub/frame.h"
#include "platform/stub/shared_pages.h"

namespace platform {

// If `frame`, the registers at a signal, is in the fast entry before the call was handed over:
// makes `registers` what they were at the call (orig_rax is the number) and returns true.
// `registers` hold the frame's. All of it is the guest's to forge.
bool UndoFastEntry(const SignalRegisters& frame, const FastRegisters& context,
                   Registers& registers);

// What the fast path has in the context, as registers; for a call, `command` counts as 0.
void ToRegisters(const FastRegisters& from, uint32_t command, Registers& to);

}  // namespace platform
