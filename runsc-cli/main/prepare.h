#pragma once

// From what the user asked for to what the processes are started with: everything that can be
// refused before anything runs.

#include <string>

#include "absl/status/statusor.h"
#include "platform/base/fd.h"
#include "runsc-cli/cmd/do.h"
#include "runsc-cli/main/sandbox.h"

namespace runsc {

absl::StatusOr<SandboxSpec> Prepare(const cmd::DoOptions& options);

// A directory or file of the host for the gofer, O_PATH and readable. `what` is for the message.
absl::StatusOr<base::Fd> OpenAttachPoint(const std::string& path, const char* what,
                                         bool& is_directory);
// Notes which of 0, 1, 2 the caller has open, and which are terminals. Closed ones are filled.
void AddStdio(ProcessConfig& config);

// The executable `name`, beside runsc or in ../libexec/ravelin, open for execution by any user. A
// file that only its owner may execute is copied, since the sentry runs as nobody.
absl::StatusOr<base::Fd> OpenHelperProgram(const std::string& name);

// Raises the limits that the sandbox's processes need (open files, file size). Fails, with the
// remedy, where the hard limit is too low.
absl::Status RaiseLimits();

}  // namespace runsc
