#pragma once

// What runsc tells the processes it starts: one message in a memfd, read before the filters go up.
//
// Writer and reader come from the same build, so there is a version and no compatibility; the
// reader still bounds everything, because a mixed installation must end in a message, not in a
// crash.

#include <sys/ioctl.h>
#include <sys/resource.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "platform/base/fd.h"
#include "runsc-cli/main/network_config.h"

namespace runsc {

// A host directory or file that the gofer serves, and where the guest sees it.
struct AttachPoint {
  std::string name;        // What the sentry asks the gofer for; unique.
  std::string guest_path;  // "/" for the root, which comes first.
  bool read_only = false;
  bool is_directory = true;
};

// A mount of a container, in the order of config.json.
struct GuestMount {
  std::string destination;
  std::string type;    // "bind": `attach` says of what; else a type of the sentry's.
  std::string source;  // As the guest sees it in mountinfo.
  std::string data;    // Options of the file system.
  std::string attach;
  uint64_t flags = 0;  // MS_*
  bool is_directory = true;
};

// A process to be started inside.
struct ProcessConfig {
  std::vector<std::string> arguments;
  std::vector<std::string> environment;
  std::string cwd;
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::vector<uint32_t> groups;
  uint32_t umask = 022;
  // Bit n-1: the caller ignores signal n, and so does the guest's first program (execve(2) keeps
  // that).
  uint64_t ignored_signals = 0;
  // Bit n: the caller had descriptor n (0, 1, 2) open.
  uint32_t stdio_open = 7;
  // Standard input is a terminal, now in raw mode: the guest gets a terminal of the sentry's in
  // place of each of the three that is one (bits as above), which the sentry connects to the
  // host's.
  bool terminal = false;
  uint32_t stdio_terminals = 0;
  winsize terminal_size{};
  // By RLIMIT_*; the sentry's own are raised.
  std::array<rlimit, RLIM_NLIMITS> limits{};
  // Bounding, effective, inheritable, permitted, ambient. Without: root has all, others none.
  bool has_capabilities = false;
  std::array<uint64_t, 5> capabilities{};
  bool no_new_privileges = false;
  int32_t oom_score_adjust = 0;
  std::string seccomp;  // struct sock_filter, one after the other.
};

struct BootConfig : ProcessConfig {
  // --- both
  std::vector<AttachPoint> attach_points;
  bool debug = false;
  bool has_log = false;  // kLogFd is open.
  bool timing = false;   // kTimingFd is open.
  // The caller is not root of the host: files of owners other than the caller's cannot be told
  // apart.
  bool single_owner_view = false;
  // "sentry" or "gofer": that process makes a forbidden call once its filter is up (a test of the
  // cages).
  std::string provoke_violation;

  // --- sentry
  std::string host_name;
  std::string platform;  // auto, systrap, ptrace
  bool rewrite = true;
  bool strace = false;
  NetworkConfig network;

  // --- sentry of an OCI container: its root is written through, it has the mounts below and no
  // others, and its first process waits for a frame.
  bool container = false;
  std::string domain_name;
  std::vector<GuestMount> mounts;
  std::vector<std::string> masked_paths;
  std::vector<std::string> read_only_paths;
  bool root_shared = false;  // Others change the root, too: nothing of it is cached.
  uint32_t cpu_count = 0;    // What the guest sees; 0: the host's.
  uint64_t memory_bytes = 0;
  uint32_t tasks_max = 0;  // Of the guest; 0: the default.
};

// A sealed memfd. The status names what the host refused.
absl::StatusOr<base::Fd> WriteBootConfig(const BootConfig& config);
absl::StatusOr<BootConfig> ReadBootConfig(int fd);

// The same for a process that joins a running sandbox.
absl::StatusOr<base::Fd> WriteProcessConfig(const ProcessConfig& config);
absl::StatusOr<ProcessConfig> ReadProcessConfig(int fd);

// For tests: the bytes.
std::string EncodeBootConfig(const BootConfig& config);
absl::StatusOr<BootConfig> DecodeBootConfig(std::span<const char> bytes);

// Descriptors of the children, beside 0, 1 and 2.
inline constexpr int kConfigFd = 3;
inline constexpr int kLogFd = 4;  // /dev/null without --debug-log.
inline constexpr int kGoferMemoryFd = 5;
inline constexpr int kGoferSocketFd = 6;  // Each side's own end.
inline constexpr int kControlFd = 7;      // Sentry only: control_socket.h.
inline constexpr int kOwnFdsFd = 7;       // Gofer only: its /proc/self/fd.
inline constexpr int kTimingFd = 8;       // timing.h
inline constexpr int kNetworkSocketFd =
    9;                                    // Sentry and network gofer with --network=host: own end.
inline constexpr int kFirstLinkFd = 10;   // Sentry with --network=sandbox: network.links.
inline constexpr int kFirstAttachFd = 9;  // Gofer only: O_PATH, in the order of attach_points.

}  // namespace runsc
