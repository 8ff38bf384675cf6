#include "platform/seccomp/violation.h"

#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "platform/base/check.h"
#include "platform/base/log.h"

namespace platform::seccomp {
namespace {

// Runs on the offending thread. base::Log formats on the stack and makes one write.
void OnSigsys(int, siginfo_t* info, void* context) {
  const auto* frame = static_cast<const ucontext_t*>(context);
  const auto* registers = frame->uc_mcontext.gregs;
  LOG_ERROR(
      "killed by its seccomp filter: system call %d(0x%llx, 0x%llx, 0x%llx, 0x%llx) at 0x%llx",
      info->si_syscall, static_cast<unsigned long long>(registers[REG_RDI]),
      static_cast<unsigned long long>(registers[REG_RSI]),
      static_cast<unsigned long long>(registers[REG_RDX]),
      static_cast<unsigned long long>(registers[REG_R10]),
      static_cast<unsigned long long>(registers[REG_RIP]));
  // Not kill(): pid 1 of a PID namespace does not die of its own signals.
  syscall(SYS_exit_group, kViolationExitCode);
  __builtin_trap();
}

}  // namespace

void ReportViolations() {
  struct sigaction action {};
  action.sa_sigaction = &OnSigsys;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigfillset(&action.sa_mask);
  CHECK(sigaction(SIGSYS, &action, nullptr) == 0);
}

}  // namespace platform::seccomp
