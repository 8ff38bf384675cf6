#pragma once

// What the stub passes to the host, where several files must agree.

#include <linux/sched.h>

#include <csignal>
#include <cstdint>

#include "platform/stub/layout.h"

namespace platform {

inline constexpr uint64_t kCloneThread =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
inline constexpr uint64_t kCloneProcess = CLONE_FILES | CLONE_PIDFD | SIGCHLD;
inline constexpr uint64_t kPrSetSyscallUserDispatch = 59;
inline constexpr uint64_t kCloseRangeUnshare = 2;

// Interrupts a guest thread.
inline constexpr int kInterruptSignal = SIGUSR1;
static_assert(kInterruptSignal == INTERRUPT_SIGNAL);
// Signals that guest code can cause, and the interrupt: the stub's handler is installed for these,
// everything else is ignored.
inline constexpr int kHandledSignals[] = {SIGSYS, SIGSEGV, SIGBUS,          SIGFPE,
                                          SIGILL, SIGTRAP, kInterruptSignal};

}  // namespace platform
