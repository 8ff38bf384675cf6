#pragma once

#include "absl/status/status.h"
#include "runsc-cli/cmd/oci_options.h"

namespace runsc {

// `update`: new limits for a container's control groups, from flags, a file or standard input.
absl::Status UpdateContainer(const cmd::OciOptions& options);

}  // namespace runsc
