#include "platform/seccomp/violation.h"

#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>

#include "platform/base/check.h"
#include "platform/base/log.h"

// The linker's: where this executable's image begins and its code ends.
extern "C" const char __executable_start;
extern "C" const char etext;

namespace platform::seccomp {
namespace {

// Words of the stack that may be return addresses are shown, as offsets into the executable (for
// addr2line): static executables without frame pointers leave no better trace that a signal handler
// could follow safely.
constexpr int kStackWords = 192;
constexpr int kFramesMax = 24;

uintptr_t ImageOffset(uintptr_t address) {
  const auto begin = reinterpret_cast<uintptr_t>(&__executable_start);
  const auto end = reinterpret_cast<uintptr_t>(&etext);
  return address > begin && address < end ? address - begin : 0;
}

// Reads frames that are not its own, which AddressSanitizer takes for an error.
__attribute__((no_sanitize_address)) void LogCallers(uintptr_t stack_pointer) {
  char text[kFramesMax * 12 + 1];
  size_t used = 0;
  const auto* words = reinterpret_cast<const uintptr_t*>(stack_pointer);
  for (int i = 0, frames = 0; i < kStackWords && frames < kFramesMax; ++i) {
    // Threads' stacks begin with what pthread_create put there, so this does not run off their top
    // soon; page ends of the main thread's are far away, too.
    const uintptr_t offset = ImageOffset(words[i]);
    if (offset == 0) continue;
    used += static_cast<size_t>(snprintf(text + used, sizeof(text) - used, " 0x%zx", offset));
    ++frames;
  }
  text[used] = '\0';
  LOG_ERROR("callers, as offsets into the executable:%s", text);
}

// Runs on the offending thread. base::Log formats on the stack and makes one write.
void OnSigsys(int, siginfo_t* info, void* context) {
  const auto* frame = static_cast<const ucontext_t*>(context);
  const auto* registers = frame->uc_mcontext.gregs;
  LOG_ERROR(
      "killed by its seccomp filter: system call %d(0x%llx, 0x%llx, 0x%llx, 0x%llx) at offset "
      "0x%zx",
      info->si_syscall, static_cast<unsigned long long>(registers[REG_RDI]),
      static_cast<unsigned long long>(registers[REG_RSI]),
      static_cast<unsigned long long>(registers[REG_RDX]),
      static_cast<unsigned long long>(registers[REG_R10]),
      ImageOffset(static_cast<uintptr_t>(registers[REG_RIP])));
  LogCallers(static_cast<uintptr_t>(registers[REG_RSP]));
  // Not kill(): pid 1 of a PID namespace does not die of its own signals.
  syscall(SYS_exit_group, kViolationExitCode);
  __builtin_trap();
}

}  // namespace

void ReportViolations() {
  struct sigaction action{};
  action.sa_sigaction = &OnSigsys;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigfillset(&action.sa_mask);
  CHECK(sigaction(SIGSYS, &action, nullptr) == 0);
}

}  // namespace platform::seccomp
