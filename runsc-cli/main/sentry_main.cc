// runsc-sentry: started by runsc inside its cage (cage.h), with nothing but descriptors. Order
// matters: log, report of violations, everything that needs the host (Guest::Prepare), the filter,
// the guest.

#include <fcntl.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "absl/synchronization/mutex.h"
#include "platform/base/log.h"
#include "platform/seccomp/filter.h"
#include "platform/seccomp/violation.h"
#include "runsc-cli/main/boot_config.h"
#include "runsc-cli/main/compiled_filters.h"
#include "runsc-cli/main/control_socket.h"
#include "runsc-cli/main/help_tables.h"
#include "runsc-cli/main/launch.h"
#include "runsc-cli/main/run_guest.h"
#include "runsc-cli/main/timing.h"

namespace runsc {
namespace {

constexpr int kMallocArenas = 2;

int FailStart(int control, absl::string_view message) {
  const std::string line(message);
  LOG_ERROR("%s", line.c_str());
  (void)SendFrame(control, FrameKind::kFailed, kOwnFailure, line).ok();
  return kOwnFailure;
}

base::Fd CloseOnExec(int fd) {
  fcntl(fd, F_SETFD, FD_CLOEXEC);
  return base::Fd(fd);
}

int SentryMain() {
  absl::StatusOr<BootConfig> config = ReadBootConfig(kConfigFd);
  if (!config.ok()) {
    fprintf(stderr, "runsc-sentry: %s\n", std::string(config.status().message()).c_str());
    return kOwnFailure;
  }
  close(kConfigFd);
  const Timing timing(config->timing ? kTimingFd : -1, "sentry");
  timing.Note("runs");
  const auto level = config->debug                       ? base::LogLevel::kDebug
                     : config->has_log || config->strace ? base::LogLevel::kInfo
                                                         : base::LogLevel::kWarning;
  // A container's standard error is its program's: without --debug-log our lines go to /dev/null.
  base::SetLogSink(config->has_log || config->container ? kLogFd : -1, level, "sentry");
  platform::seccomp::ReportViolations();
#ifdef RAVELIN_RELEASE
  // Debian's Abseil checks lock order in release builds, too: half of the time of a busy sentry.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  // Threads allocate little and briefly: more arenas would be more pages that nobody else uses.
  mallopt(M_ARENA_MAX, kMallocArenas);
  // Stubs inherit it, and platform ptrace must be able to trace them.
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);

  GuestFds fds;
  fds.control = CloseOnExec(kControlFd);
  fds.gofer_memory = CloseOnExec(kGoferMemoryFd);
  fds.gofer_socket = CloseOnExec(kGoferSocketFd);
  const int links_end = kFirstLinkFd + static_cast<int>(config->network.links.size());
  for (int fd = kFirstLinkFd; fd < links_end; ++fd) fds.links.push_back(CloseOnExec(fd));
  for (int fd = 0; fd < 3; ++fd) {
    // Copies: descriptor 2 stays for our own last words whatever the guest closes.
    if ((config->stdio_open >> fd & 1) != 0)
      fds.stdio[fd] = base::Fd(fcntl(fd, F_DUPFD_CLOEXEC, kFirstAttachFd));
  }
  const int control = fds.control.get();
  const bool provoke = config->provoke_violation == "sentry";
  auto guest = Guest::Prepare(std::move(*config), std::move(fds), timing);
  if (!guest.ok()) return FailStart(control, guest.status().message());

  if (getpid() != 1) return FailStart(control, "not the first process of its namespace");
  const CompiledFilter& filter =
      (*guest)->platform_name() == "systrap" ? kSystrapSentryFilter : kPtraceSentryFilter;
  const base::Result<void> installed = platform::seccomp::Install(filter.program);
  if (!installed.ok()) {
    return FailStart(control, std::string("cannot install the sentry's seccomp filter: ") +
                                  strerror(installed.error().value()));
  }
  LOG_INFO("filter installed: %zu system calls", filter.calls_allowed);
  timing.Note("has its filter");
  if (provoke) syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
  const int status = (*guest)->Run();
  // Threads of the guest's tasks may still be about; nothing of theirs is worth a destructor.
  _exit(status);
}

}  // namespace
}  // namespace runsc

// Abseil, when a lock is first waited for, measures the CPU's frequency against three sleeps of a
// millisecond and more, since it finds no file that says it; all it wants is to know roughly when a
// second has passed. The linker puts this in its place (--wrap).
extern "C" double __wrap__ZN4absl7debian313base_internal19NominalCPUFrequencyEv();
extern "C" double __wrap__ZN4absl7debian313base_internal19NominalCPUFrequencyEv() { return 3e9; }

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "help") == 0) {
    const std::string table = runsc::HelpTable(argv[2]);
    return fputs(table.c_str(), stdout) >= 0 && fflush(stdout) == 0 && !table.empty() ? 0 : 1;
  }
  return runsc::SentryMain();
}
