#pragma once

// From what the user asked for to what the processes are started with: everything that can be
// refused before anything runs.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "platform/base/fd.h"
#include "runsc-cli/cmd/do.h"
#include "runsc-cli/main/boot_config.h"

namespace runsc {

struct Prepared {
  BootConfig config;
  std::vector<base::Fd> link_fds;    // In the order of config.network.links.
  std::vector<base::Fd> attach_fds;  // O_PATH, in the order of config.attach_points.
};

absl::StatusOr<Prepared> Prepare(const cmd::DoOptions& options);

// The executable `name`, beside runsc or in ../libexec/ravelin, open for execution by any user. A
// file that only its owner may execute is copied, since the sentry runs as nobody.
absl::StatusOr<base::Fd> OpenHelperProgram(const std::string& name);

// Raises the limits that the sandbox's processes need (open files, file size). Fails, with the
// remedy, where the hard limit is too low.
absl::Status RaiseLimits();

}  // namespace runsc
