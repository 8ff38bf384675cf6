#pragma once

// The command line of an OCI runtime: what runc's and gVisor's callers type, as data.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runsc-cli/cmd/do.h"

namespace cmd {

// Flags that stand before the command or after it.
struct GlobalOptions {
  CommonOptions common;
  std::string root;  // Of the containers' state; empty: the default.
  std::string log;   // A file; empty: standard error.
  std::string log_format = "text";
  bool rootless_given = false;
  std::vector<std::string> ignored;  // Flags of gVisor or runc that mean nothing here.
};
void AddGlobalFlags(Flags& flags, GlobalOptions& options);

// One struct for all commands: most flags mean the same in several.
struct OciOptions {
  GlobalOptions global;
  std::string id;
  std::vector<std::string> rest;  // What follows the id.

  std::string bundle = ".";
  std::string pid_file;
  std::string console_socket;
  std::string process_file;  // exec -p
  std::string internal_pid_file;
  int preserve_fds = 0;
  bool detach = false;
  bool keep = false;
  bool force = false;
  bool all = false;
  bool quiet = false;
  bool stats = false;
  bool rootless = false;
  bool ignore_paused = false;
  std::string format;
  std::string interval = "5s";
  std::string resources;  // update -r

  // --- exec
  bool tty = false;
  bool no_new_privileges = false;
  std::string cwd;
  std::string user;
  std::vector<std::string> environment;
  std::vector<std::string> capabilities;
  std::vector<std::string> additional_gids;

  // --- update; empty: not given.
  std::string memory, memory_reservation, memory_swap, cpu_shares, cpu_quota, cpu_period, cpu_burst,
      cpu_idle, cpuset_cpus, cpuset_mems, pids_limit, blkio_weight;
};

// `arguments` come after the command's name. Flags may also stand behind the id, except where a
// program's arguments follow it.
absl::StatusOr<OciOptions> ParseOci(const std::string& command,
                                    std::span<const std::string> arguments,
                                    const GlobalOptions& global);

// The commands that ParseOci knows.
bool IsOciCommand(const std::string& command);

}  // namespace cmd
