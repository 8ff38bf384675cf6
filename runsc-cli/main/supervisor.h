#pragma once

// The process that stands for a container: the parent of its sentry and gofer, the one whose id is
// in the pid-file. It is in the container's control groups and network namespace, belongs to
// whoever called `create` once that has left, answers the container's control socket, and ends with
// the status of the guest's first process.

#include <optional>
#include <string>

#include "platform/base/fd.h"
#include "runsc-cli/main/sandbox.h"
#include "runsc-cli/oci/cgroup.h"
#include "runsc-cli/oci/state.h"

namespace runsc {

struct SupervisorSetup {
  SandboxSpec sandbox;
  base::Fd listener;  // The control socket, listening.
  base::Fd report;    // To `create`; its end before kCommit means that `create` was killed.
  oci::Cgroups cgroups;
  // A path, or empty for a new one; nothing: the caller's.
  std::optional<std::string> network_namespace;
  std::string console_socket;  // Where the master of a new host terminal goes; may be empty.
};

// In the child of a fork. Never returns.
[[noreturn]] void RunSupervisor(SupervisorSetup setup, const oci::ContainerDir& directory,
                                const Timing& timing);

// A new terminal of the host as descriptors 0, 1 and 2 of this process, in raw mode and its
// controlling terminal; the other end goes to who listens at `console_socket`.
absl::Status OpenHostTerminal(const std::string& console_socket, winsize size);
absl::StatusOr<base::Fd> ConnectUnix(int directory, const std::string& path, int type);

}  // namespace runsc
