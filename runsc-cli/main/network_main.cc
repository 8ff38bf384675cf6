// runsc-network: the network gofer of a sandbox with --network=host, started by runsc in the host's
// network namespace and otherwise in a cage of its own.

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "gofer/network/server.h"
#include "platform/base/log.h"
#include "platform/base/text_pages.h"
#include "platform/seccomp/filter.h"
#include "platform/seccomp/violation.h"
#include "runsc-cli/main/boot_config.h"
#include "runsc-cli/main/compiled_filters.h"
#include "runsc-cli/main/launch.h"

namespace runsc {
namespace {

int NetworkMain() {
  const absl::StatusOr<BootConfig> config = ReadBootConfig(kConfigFd);
  if (!config.ok()) {
    fprintf(stderr, "runsc-network: %s\n", std::string(config.status().message()).c_str());
    return kOwnFailure;
  }
  close(kConfigFd);
  const auto level = config->debug     ? base::LogLevel::kDebug
                     : config->has_log ? base::LogLevel::kInfo
                                       : base::LogLevel::kWarning;
  base::SetLogSink(config->has_log ? kLogFd : -1, level, "network");
  platform::seccomp::ReportViolations();
  gofer::network::Server server{base::Fd(kNetworkSocketFd)};

  // Here, since the filter has no madvise.
  if (!config->debug) base::DropTextPages();
  const base::Result<void> installed = platform::seccomp::Install(kNetworkGoferFilter.program);
  if (!installed.ok()) {
    LOG_ERROR("cannot install the network gofer's seccomp filter: %s",
              strerror(installed.error().value()));
    return kOwnFailure;
  }
  LOG_INFO("filter installed: %zu system calls", kNetworkGoferFilter.calls_allowed);
  if (config->provoke_violation == "network") syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
  const absl::Status served = server.Run();
  _exit(served.ok() ? 0 : kOwnFailure);
}

}  // namespace
}  // namespace runsc

int main() { return runsc::NetworkMain(); }
