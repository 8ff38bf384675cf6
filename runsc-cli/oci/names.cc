// Names of capabilities, limits and signals, and the example that `runsc spec` prints.

#include <linux/capability.h>
#include <signal.h>
#include <strings.h>
#include <sys/resource.h>

#include <array>
#include <charconv>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "platform/base/strings.h"
#include "runsc-cli/oci/spec.h"

namespace oci {
namespace {

constexpr std::array kCapabilities = {"CHOWN",
                                      "DAC_OVERRIDE",
                                      "DAC_READ_SEARCH",
                                      "FOWNER",
                                      "FSETID",
                                      "KILL",
                                      "SETGID",
                                      "SETUID",
                                      "SETPCAP",
                                      "LINUX_IMMUTABLE",
                                      "NET_BIND_SERVICE",
                                      "NET_BROADCAST",
                                      "NET_ADMIN",
                                      "NET_RAW",
                                      "IPC_LOCK",
                                      "IPC_OWNER",
                                      "SYS_MODULE",
                                      "SYS_RAWIO",
                                      "SYS_CHROOT",
                                      "SYS_PTRACE",
                                      "SYS_PACCT",
                                      "SYS_ADMIN",
                                      "SYS_BOOT",
                                      "SYS_NICE",
                                      "SYS_RESOURCE",
                                      "SYS_TIME",
                                      "SYS_TTY_CONFIG",
                                      "MKNOD",
                                      "LEASE",
                                      "AUDIT_WRITE",
                                      "AUDIT_CONTROL",
                                      "SETFCAP",
                                      "MAC_OVERRIDE",
                                      "MAC_ADMIN",
                                      "SYSLOG",
                                      "WAKE_ALARM",
                                      "BLOCK_SUSPEND",
                                      "AUDIT_READ",
                                      "PERFMON",
                                      "BPF",
                                      "CHECKPOINT_RESTORE"};
static_assert(kCapabilities.size() == CAP_CHECKPOINT_RESTORE + 1);

struct NamedLimit {
  const char* name;
  int number;
};
constexpr NamedLimit kLimits[] = {
    {"AS", RLIMIT_AS},           {"CORE", RLIMIT_CORE},         {"CPU", RLIMIT_CPU},
    {"DATA", RLIMIT_DATA},       {"FSIZE", RLIMIT_FSIZE},       {"LOCKS", RLIMIT_LOCKS},
    {"MEMLOCK", RLIMIT_MEMLOCK}, {"MSGQUEUE", RLIMIT_MSGQUEUE}, {"NICE", RLIMIT_NICE},
    {"NOFILE", RLIMIT_NOFILE},   {"NPROC", RLIMIT_NPROC},       {"RSS", RLIMIT_RSS},
    {"RTPRIO", RLIMIT_RTPRIO},   {"RTTIME", RLIMIT_RTTIME},     {"SIGPENDING", RLIMIT_SIGPENDING},
    {"STACK", RLIMIT_STACK}};

Json ExampleMount(const char* destination, const char* type, const char* source,
                  const std::vector<std::string>& options) {
  Json mount;
  mount.Set("destination", destination);
  mount.Set("type", type);
  mount.Set("source", source);
  if (!options.empty()) mount.Set("options", options);
  return mount;
}

Json ExampleProcess() {
  Json process;
  process.Set("terminal", true);
  Json& user = process.Set("user", Json::NewObject());
  user.Set("uid", 0);
  user.Set("gid", 0);
  process.Set("args", std::vector<std::string>{"sh"});
  process.Set("env", std::vector<std::string>{
                         "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                         "TERM=xterm"});
  process.Set("cwd", "/");
  Json& capabilities = process.Set("capabilities", Json::NewObject());
  for (const char* set : {"bounding", "effective", "permitted"}) {
    capabilities.Set(
        set, std::vector<std::string>{"CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"});
  }
  Json limit;
  limit.Set("type", "RLIMIT_NOFILE");
  limit.Set("hard", 1024);
  limit.Set("soft", 1024);
  process.Set("rlimits", Json::NewArray()).Append(std::move(limit));
  process.Set("noNewPrivileges", true);
  return process;
}

Json ExampleLinux(bool rootless) {
  Json linux_part;
  if (!rootless) {
    Json rule;
    rule.Set("allow", false);
    rule.Set("access", "rwm");
    linux_part.Set("resources", Json::NewObject())
        .Set("devices", Json::NewArray())
        .Append(std::move(rule));
  }
  Json& namespaces = linux_part.Set("namespaces", Json::NewArray());
  for (const char* type : {"pid", "network", "ipc", "uts", "mount", "cgroup"}) {
    if (rootless && strcmp(type, "network") == 0) continue;
    Json space;
    space.Set("type", type);
    namespaces.Append(std::move(space));
  }
  linux_part.Set("maskedPaths", std::vector<std::string>{
                                    "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys",
                                    "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                                    "/proc/sched_debug", "/sys/firmware", "/proc/scsi"});
  linux_part.Set("readonlyPaths", std::vector<std::string>{"/proc/bus", "/proc/fs", "/proc/irq",
                                                           "/proc/sys", "/proc/sysrq-trigger"});
  return linux_part;
}

}  // namespace

int CapabilityNumber(std::string_view name) {
  if (name.starts_with("CAP_")) name.remove_prefix(4);
  for (size_t i = 0; i < kCapabilities.size(); ++i) {
    if (name == kCapabilities[i]) return static_cast<int>(i);
  }
  return -1;
}

std::vector<std::string> CapabilityNames() {
  std::vector<std::string> names;
  for (const char* name : kCapabilities) names.push_back(absl::StrCat("CAP_", name));
  return names;
}

int RlimitNumber(std::string_view name) {
  if (!name.starts_with("RLIMIT_")) return -1;
  name.remove_prefix(7);
  for (const NamedLimit& limit : kLimits) {
    if (name == limit.name) return limit.number;
  }
  return -1;
}

int SignalNumber(std::string_view name) {
  int number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error == std::errc() && end == name.data() + name.size()) {
    return number > 0 && number <= 64 ? number : -1;
  }
  std::string upper(name);
  for (char& c : upper) c = static_cast<char>(toupper(static_cast<unsigned char>(c)));
  if (upper.starts_with("SIG")) upper.erase(0, 3);
  for (int signal = 1; signal < 32; ++signal) {
    const char* const known = sigabbrev_np(signal);
    if (known != nullptr && upper == known) return signal;
  }
  // The kernel's numbers, of which the C library keeps two for itself.
  constexpr int kRtMin = 34;
  constexpr int kRtMax = 64;
  int offset = 0;
  const auto offset_of = [&upper, &offset](size_t from) {
    if (upper.size() == from) return true;
    const char* const first = upper.data() + from + (upper[from] == '+' ? 1 : 0);
    return std::from_chars(first, upper.data() + upper.size(), offset).ec == std::errc();
  };
  if (upper.starts_with("RTMIN") && offset_of(5)) number = kRtMin + offset;
  if (upper.starts_with("RTMAX") && offset_of(5)) number = kRtMax + offset;
  return number >= kRtMin && number <= kRtMax ? number : -1;
}

Json ExampleSpec(bool rootless) {
  Json spec;
  spec.Set("ociVersion", "1.2.0");
  spec.Set("process", ExampleProcess());
  Json& root = spec.Set("root", Json::NewObject());
  root.Set("path", "rootfs");
  root.Set("readonly", true);
  spec.Set("hostname", "runsc");
  Json& mounts = spec.Set("mounts", Json::NewArray());
  mounts.Append(ExampleMount("/proc", "proc", "proc", {}));
  mounts.Append(
      ExampleMount("/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}));
  mounts.Append(ExampleMount("/dev/pts", "devpts", "devpts",
                             {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}));
  mounts.Append(ExampleMount("/dev/shm", "tmpfs", "shm",
                             {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}));
  mounts.Append(ExampleMount("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}));
  mounts.Append(ExampleMount("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"}));
  spec.Set("linux", ExampleLinux(rootless));
  return spec;
}

}  // namespace oci
