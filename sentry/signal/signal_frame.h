#pragma once

// The stack frame of a signal handler on x86-64, and the way back (rt_sigreturn(2)). Byte for byte
// what Linux 6.12 builds (arch/x86/kernel/signal_64.c, fpu/signal.c), because unwinders, debuggers,
// language run-times and CRIU read it.

#include "platform/base/result.h"
#include "sentry/signal/signal_delivery.h"
#include "sentry/signal/signal_types.h"

namespace sentry {

class Task;

class SignalFrame {
 public:
  // Puts a frame for `signal` on the guest's stack (or alternate stack) and points the registers at
  // the handler. `mask`: the one to come back on return. EFAULT if the frame cannot be written, or
  // overflows the alternate stack: the caller forces SIGSEGV.
  static base::Result<void> Push(Task& task, const SignalToHandle& signal, SignalSet mask);
  // Restores what the frame at the stack pointer says. The frame is the guest's: any bytes. EFAULT:
  // the caller forces SIGSEGV. Registers are only changed on success.
  static base::Result<void> Return(Task& task);
};

// sigaltstack(2)'s rules for setting. EPERM while running on it, EINVAL, ENOMEM.
base::Result<void> SetAlternateStack(Task& task, uint64_t address, int32_t flags, uint64_t size);
// Flags as the guest sees them now: SS_ONSTACK or SS_DISABLE, and SS_AUTODISARM.
int32_t AlternateStackFlags(Task& task);

}  // namespace sentry
