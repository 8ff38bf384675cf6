#pragma once

// From config.json to what a sandbox is started with.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runsc-cli/cmd/do.h"
#include "runsc-cli/main/sandbox.h"
#include "runsc-cli/oci/spec.h"

namespace runsc {

struct Composed {
  SandboxSpec sandbox;
  std::string rootfs;                 // Absolute.
  std::vector<std::string> warnings;  // What the configuration asks for in vain.
};

// Opens the root and the sources of bind mounts.
absl::StatusOr<Composed> ComposeSandbox(const oci::Spec& spec, const std::string& bundle,
                                        const cmd::CommonOptions& common);

// `profile`: linux.seccomp, may be null. `rootfs` is where HOME is looked up.
absl::StatusOr<ProcessConfig> ComposeProcess(const oci::Process& process,
                                             const oci::SeccompProfile* profile,
                                             const std::string& rootfs,
                                             std::vector<std::string>& warnings);

}  // namespace runsc
