#pragma once

// Hooks (runtime-spec): programs of the operator, run at points of a container's life with its
// state on their standard input.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runsc-cli/oci/spec.h"

namespace oci {

// One after the other; stops at the first that fails. `kind` is for the message, `state` the JSON.
absl::Status RunHooks(const std::vector<Hook>& hooks, const char* kind, const std::string& state);

}  // namespace oci
