#pragma once

// Dying of a forbidden system call with a line that says which one.
//
// The kernel's own kill (SECCOMP_RET_KILL_PROCESS) tells the parent SIGSYS and nothing else; the
// number would be in the host's audit log at best. So the sentry and the gofer use kTrap with this
// handler: it writes one line and ends the process. That is no weaker, as long as the filter keeps
// the handler in place: the call is not made either way, rt_sigaction(SIGSYS) is itself refused by
// both tables, and with SIGSYS blocked the kernel kills the process at once.

namespace platform::seccomp {

// The status with which the handler ends the process: what a shell shows for a death by SIGSYS.
inline constexpr int kViolationExitCode = 128 + 31;

// Before the filter goes up. Lines go to the log of platform/base and, shortened, to standard error
// if that is not the log.
void ReportViolations();

}  // namespace platform::seccomp
