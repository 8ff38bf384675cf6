#pragma once

// linux.seccomp as a BPF program. The sentry runs it on the guest's calls, before its own handlers;
// it has nothing to do with the filters that cage the sandbox itself.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runsc-cli/oci/spec.h"

namespace oci {

struct CompiledProfile {
  std::string program;  // struct sock_filter, one after the other.
  std::vector<std::string>
      unknown;  // Names of calls that nobody here knows: ignored, as runc does.
};

absl::StatusOr<CompiledProfile> CompileSeccomp(const SeccompProfile& profile);

}  // namespace oci
