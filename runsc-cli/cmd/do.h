#pragma once

// `runsc do`: one command in a throw-away sandbox over the host's own files. What the user asked
// for.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runsc-cli/cmd/arguments.h"

namespace cmd {

// Flags that may also stand before the command's name.
struct CommonOptions {
  std::string platform = "auto";  // auto, systrap, ptrace
  std::string network = "none";   // none, sandbox
  std::string debug_log;          // A directory; empty: no files.
  std::string rewrite = "on";     // on, off
  // Whether only the sandbox changes a container's root while it runs: exclusive, shared.
  std::string file_access = "exclusive";
  bool strace = false;
  bool debug = false;
  bool timing = false;
};
void AddCommonFlags(Flags& flags, CommonOptions& options);

struct Volume {
  std::string host_path;
  std::string guest_path;  // Absolute.
  bool read_only = false;
};

struct DoOptions {
  CommonOptions common;
  std::string root = "/";
  std::string cwd;                       // Empty: the caller's if the root is the host's, else "/".
  std::vector<std::string> environment;  // Additions to the caller's, K=V.
  std::optional<uint32_t> uid;
  std::optional<uint32_t> gid;
  std::vector<Volume> volumes;
  std::string network_namespace;  // Whose interfaces --network=sandbox takes over.
  // For tests of the cages: "sentry" or "gofer" makes that process call something that its filter
  // forbids.
  std::string provoke_violation;
  std::vector<std::string> command;  // Not empty.
};

// `arguments` come after "do".
absl::StatusOr<DoOptions> ParseDo(std::span<const std::string> arguments,
                                  const CommonOptions& common);

}  // namespace cmd
