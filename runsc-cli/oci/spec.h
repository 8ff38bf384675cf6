#pragma once

// config.json (runtime-spec 1.2, Linux) as types. What is here is what some part of Ravelin uses or
// has to refuse; other fields, known or not, are ignored, as the specification wants it.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runsc-cli/oci/json.h"

namespace oci {

using Pairs = std::vector<std::pair<std::string, std::string>>;

struct User {
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::optional<uint32_t> umask;
  std::vector<uint32_t> additional_gids;
};

// Bits are CAP_*.
struct Capabilities {
  uint64_t bounding = 0, effective = 0, inheritable = 0, permitted = 0, ambient = 0;
  std::vector<std::string> unknown;  // Named, and known to nobody here: worth a warning.
};

struct Rlimit {
  int resource = 0;  // RLIMIT_*
  uint64_t soft = 0;
  uint64_t hard = 0;
};

struct Process {
  bool terminal = false;
  uint16_t console_rows = 0;
  uint16_t console_columns = 0;
  User user;
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::string cwd;
  std::optional<Capabilities> capabilities;
  std::vector<Rlimit> rlimits;
  bool no_new_privileges = false;
  std::optional<int32_t> oom_score_adj;
  std::string apparmor_profile;
  std::string selinux_label;
};

struct Mount {
  std::string destination;
  std::string type;
  std::string source;
  std::vector<std::string> options;
};

struct Hook {
  std::string path;
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::optional<int64_t> timeout_s;
};
struct Hooks {
  std::vector<Hook> prestart, create_runtime, create_container, start_container, poststart,
      poststop;
};

struct Namespace {
  std::string type;  // pid, network, mount, ipc, uts, user, cgroup, time
  std::string path;
};

struct IdMapping {
  uint32_t container_id = 0, host_id = 0, size = 0;
};

struct Device {
  std::string path;
  char type = 'c';  // b, c, u, p
  uint32_t major = 0, minor = 0;
  std::optional<uint32_t> mode, uid, gid;
};

struct DeviceRule {
  bool allow = false;
  char type = 'a';
  std::optional<int64_t> major, minor;  // Absent: all.
  std::string access;
};

struct HugepageLimit {
  std::string page_size;
  uint64_t limit = 0;
};

struct ThrottleDevice {
  uint64_t major = 0, minor = 0, rate = 0;
};

// Only what is given is written. -1 is "no limit".
struct Resources {
  std::vector<DeviceRule> devices;
  std::optional<int64_t> memory_limit, memory_reservation, memory_swap, kernel_memory_tcp;
  std::optional<uint64_t> memory_swappiness;
  std::optional<bool> disable_oom_killer, memory_check_before_update;
  std::optional<uint64_t> cpu_shares, cpu_period, cpu_burst, realtime_period;
  std::optional<int64_t> cpu_quota, realtime_runtime, cpu_idle;
  std::string cpus, mems;
  std::optional<int64_t> pids_limit;
  std::optional<uint64_t> blkio_weight;
  std::vector<ThrottleDevice> throttle_read_bps, throttle_write_bps, throttle_read_iops,
      throttle_write_iops;
  std::vector<HugepageLimit> hugepages;
  std::optional<uint32_t> network_class;
  Pairs unified;
};

struct SeccompArgument {
  uint32_t index = 0;
  uint64_t value = 0, value_two = 0;
  std::string operation;
};
struct SeccompRule {
  std::vector<std::string> names;
  std::string action;
  std::optional<uint32_t> error;
  std::vector<SeccompArgument> arguments;
};
struct SeccompProfile {
  std::string default_action;
  std::optional<uint32_t> default_error;
  std::vector<std::string> architectures;
  std::vector<std::string> flags;
  std::string listener_path;
  std::vector<SeccompRule> rules;
};

struct Spec {
  std::string version;
  std::optional<Process> process;
  std::string root_path;
  bool root_read_only = false;
  std::string host_name;
  std::string domain_name;
  std::vector<Mount> mounts;
  Hooks hooks;
  Pairs annotations;

  std::vector<Namespace> namespaces;
  std::vector<IdMapping> uid_mappings, gid_mappings;
  std::vector<Device> devices;
  std::string cgroups_path;
  Resources resources;
  Pairs sysctl;
  std::optional<SeccompProfile> seccomp;
  std::vector<std::string> masked_paths, read_only_paths;
  std::string rootfs_propagation;

  // Null if the container has none of its own of that type.
  const Namespace* FindNamespace(std::string_view type) const;
};

// Errors name the field: `process.user.uid: ...`.
absl::StatusOr<Spec> ParseSpec(const Json& json);
// `where` starts the names of fields in messages.
absl::StatusOr<Process> ParseProcess(const Json& json, const std::string& where);
absl::StatusOr<Resources> ParseResources(const Json& json, const std::string& where);

// `<bundle>/config.json`, checked.
absl::StatusOr<Spec> LoadSpec(const std::string& bundle);
// A file of at most 8 MiB; "-": standard input.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

// What `runsc spec` writes.
Json ExampleSpec(bool rootless);

// --- Names. -1 or nothing if unknown.
int CapabilityNumber(std::string_view name);
std::vector<std::string> CapabilityNames();
int RlimitNumber(std::string_view name);
// "TERM", "SIGTERM", "15".
int SignalNumber(std::string_view name);

}  // namespace oci
