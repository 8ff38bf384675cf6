// runsc-gofer: started by runsc inside its cage, with the trees to serve already open.

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "gofer/server/server.h"
#include "platform/base/log.h"
#include "platform/base/text_pages.h"
#include "platform/seccomp/filter.h"
#include "platform/seccomp/violation.h"
#include "runsc-cli/main/boot_config.h"
#include "runsc-cli/main/compiled_filters.h"
#include "runsc-cli/main/launch.h"
#include "runsc-cli/main/timing.h"

namespace runsc {
namespace {

int FailStart(absl::string_view message) {
  LOG_ERROR("%s", std::string(message).c_str());
  return kOwnFailure;
}

int GoferMain() {
  const absl::StatusOr<BootConfig> config = ReadBootConfig(kConfigFd);
  if (!config.ok()) {
    fprintf(stderr, "runsc-gofer: %s\n", std::string(config.status().message()).c_str());
    return kOwnFailure;
  }
  close(kConfigFd);
  const Timing timing(config->timing ? kTimingFd : -1, "gofer");
  timing.Note("runs");
  const auto level = config->debug     ? base::LogLevel::kDebug
                     : config->has_log ? base::LogLevel::kInfo
                                       : base::LogLevel::kWarning;
  // As the sentry's: a container's standard error is not ours.
  base::SetLogSink(config->has_log || config->container ? kLogFd : -1, level, "gofer");
  platform::seccomp::ReportViolations();

  gofer::Server::Options options;
  options.memory = base::Fd(kGoferMemoryFd);
  options.socket = base::Fd(kGoferSocketFd);
  options.proc_self_fd = base::Fd(kOwnFdsFd);
  options.foreign_owners_are_root = config->single_owner_view;
  int next = kFirstAttachFd;
  for (const AttachPoint& point : config->attach_points) {
    gofer::AttachPoint served;
    served.name = point.name;
    served.root_path_fd = base::Fd(next++);
    served.read_only = point.read_only;
    options.attach_points.push_back(std::move(served));
  }
  auto server = gofer::Server::Create(std::move(options));
  if (!server.ok()) return FailStart(server.status().message());

  // Here, since the filter has no madvise.
  if (!config->debug) base::DropTextPages();
  const base::Result<void> installed = platform::seccomp::Install(kGoferFilter.program);
  if (!installed.ok()) {
    return FailStart(std::string("cannot install the gofer's seccomp filter: ") +
                     strerror(installed.error().value()));
  }
  LOG_INFO("filter installed: %zu system calls", kGoferFilter.calls_allowed);
  timing.Note("serves");
  if (config->provoke_violation == "gofer") syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
  const absl::Status served = (*server)->Run();
  // The reason has been logged; without its gofer the sandbox ends.
  // Nothing that it holds is worth a destructor.
  _exit(served.ok() ? 0 : kOwnFailure);
}

}  // namespace
}  // namespace runsc

int main() { return runsc::GoferMain(); }
