// runsc-sentry: started by runsc inside its cage (cage.h), with nothing but descriptors. Order
// matters: log, report of violations, everything that needs the host (Guest::Prepare), the filter,
// the guest.

#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/internal/cycleclock.h"
#include "absl/base/internal/sysinfo.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/log.h"
#include "platform/seccomp/filter.h"
#include "platform/seccomp/violation.h"
#include "runsc-cli/main/boot_config.h"
#include "runsc-cli/main/control_socket.h"
#include "runsc-cli/main/help_tables.h"
#include "runsc-cli/main/launch.h"
#include "runsc-cli/main/run_guest.h"
#include "runsc-cli/main/sentry_filter.h"

namespace runsc {
namespace {

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

// The first time that malloc gives part of a thread's arena back, it asks
// /proc/sys/vm/overcommit_memory whether it may, and remembers the answer.
void* GiveMemoryBack(void*) {
  std::array<void*, 16> pieces{};
  for (void*& piece : pieces) piece = malloc(size_t{100} << 10);
  for (void* piece : pieces) free(piece);
  return nullptr;
}

// What libraries would look up in files the first time they need it, when there are none any more.
void WarmUpLibraries() {
  // Else malloc counts the CPUs, in /sys, before it makes a further arena.
  mallopt(M_ARENA_MAX, 8);
  pthread_t thread;
  if (pthread_create(&thread, nullptr, &GiveMemoryBack, nullptr) == 0)
    pthread_join(thread, nullptr);
  // Abseil's locks ask how many CPUs there are, and measure contention in units of their nominal
  // frequency.
  (void)absl::base_internal::NumCPUs();
  (void)absl::base_internal::NominalCPUFrequency();
  // Else malloc asks /proc/sys/vm/overcommit_memory the first time a thread's arena has room to
  // give back.
  std::thread([] {
    std::vector<std::string> blocks;
    for (int i = 0; i < 32; ++i) blocks.emplace_back(size_t{100} << 10, 'x');
  }).join();
}

int SentryMain() {
  absl::StatusOr<BootConfig> config = ReadBootConfig(kConfigFd);
  if (!config.ok()) {
    fprintf(stderr, "runsc-sentry: %s\n", std::string(config.status().message()).c_str());
    return kOwnFailure;
  }
  close(kConfigFd);
  const auto level = config->debug                       ? base::LogLevel::kDebug
                     : config->has_log || config->strace ? base::LogLevel::kInfo
                                                         : base::LogLevel::kWarning;
  base::SetLogSink(config->has_log ? kLogFd : -1, level, "sentry");
  platform::seccomp::ReportViolations();
#ifdef RAVELIN_RELEASE
  // Debian's Abseil checks lock order in release builds, too: half of the time of a busy sentry.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
  WarmUpLibraries();
  // Stubs inherit it, and platform ptrace must be able to trace them.
  prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);

  GuestFds fds;
  fds.control = CloseOnExec(kControlFd);
  fds.gofer_memory = CloseOnExec(kGoferMemoryFd);
  fds.gofer_socket = CloseOnExec(kGoferSocketFd);
  for (int fd = 0; fd < 3; ++fd) {
    // Copies: descriptor 2 stays for our own last words whatever the guest closes.
    if ((config->stdio_open >> fd & 1) != 0)
      fds.stdio[fd] = base::Fd(fcntl(fd, F_DUPFD_CLOEXEC, 8));
  }
  const int control = fds.control.get();
  const bool provoke = config->provoke_violation == "sentry";
  auto guest = Guest::Prepare(std::move(*config), std::move(fds));
  if (!guest.ok()) return FailStart(control, guest.status().message());

  const platform::seccomp::Filter filter = SentryFilter(
      {.own_pid = getpid(), .ptrace_platform = (*guest)->platform_name() != "systrap"});
  const base::Result<void> installed =
      platform::seccomp::Install(platform::seccomp::Compile(filter));
  if (!installed.ok()) {
    return FailStart(control, std::string("cannot install the sentry's seccomp filter: ") +
                                  strerror(installed.error().value()));
  }
  LOG_INFO("filter installed: %zu system calls", platform::seccomp::CountAllowed(filter));
  if (provoke) syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
  // Measured once, over some milliseconds, when a lock is first contended: better now, beside the
  // start, than then.
  std::thread([] { absl::base_internal::CycleClock::Frequency(); }).detach();
  const int status = (*guest)->Run();
  // Threads of the guest's tasks may still be about; nothing of theirs is worth a destructor.
  _exit(status);
}

}  // namespace
}  // namespace runsc

int main(int argc, char** argv) {
  if (argc == 3 && strcmp(argv[1], "help") == 0) {
    const std::string table = runsc::HelpTable(argv[2]);
    return fputs(table.c_str(), stdout) >= 0 && fflush(stdout) == 0 && !table.empty() ? 0 : 1;
  }
  return runsc::SentryMain();
}
