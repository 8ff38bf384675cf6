#pragma once

// From a started, caged sentry process to a running guest: the place where the sentry's concrete
// parts meet.

#include <array>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "platform/base/fd.h"
#include "runsc-cli/main/boot_config.h"
#include "runsc-cli/main/timing.h"

namespace runsc {

// The descriptors that the sentry was started with.
struct GuestFds {
  base::Fd control;       // control_socket.h
  base::Fd gofer_memory;  // gofer::Client::Create
  base::Fd gofer_socket;
  std::vector<base::Fd> links;    // In the order of BootConfig::network.links.
  std::array<base::Fd, 3> stdio;  // The caller's; empty where the caller had none.
};

class Guest {
 public:
  // Everything that the filter forbids: memory pool, platform (which starts its helper process),
  // host queries.
  static absl::StatusOr<std::unique_ptr<Guest>> Prepare(BootConfig config, GuestFds fds,
                                                        const Timing& timing);
  virtual ~Guest() = default;

  // "systrap" or "ptrace", chosen.
  virtual std::string_view platform_name() const = 0;
  // Under the filter. Runs the guest to its end, sending kStarted and then kExited or kFailed over
  // fds.control on the way, and returns the process's own exit status.
  virtual int Run() = 0;
};

}  // namespace runsc
