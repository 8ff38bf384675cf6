#include "runsc-cli/cmd/oci_options.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "platform/base/strings.h"

namespace cmd {
namespace {

// gVisor's and runc's global flags that have no meaning here. Those in the first list take a value.
constexpr const char* kForeignValues[] = {"overlay2",
                                          "file-access-mounts",
                                          "host-uds",
                                          "host-fifo",
                                          "host-settings",
                                          "watchdog-action",
                                          "panic-signal",
                                          "num-network-channels",
                                          "network-processors-per-channel",
                                          "gso-max-size",
                                          "qdisc",
                                          "ref-leak-mode",
                                          "panic-log",
                                          "panic-log-fd",
                                          "log-fd",
                                          "debug-log-fd",
                                          "debug-log-format",
                                          "debug-to-user-log",
                                          "coverage-report",
                                          "strace-syscalls",
                                          "strace-log-size",
                                          "profile-block",
                                          "profile-cpu",
                                          "profile-heap",
                                          "profile-mutex",
                                          "trace",
                                          "controller",
                                          "metric-server",
                                          "pod-init-config",
                                          "platform_device_path",
                                          "dcache",
                                          "nvproxy-driver-version",
                                          "nvproxy-allowed-driver-capabilities",
                                          "save-restore-netstack",
                                          "final-metrics-log",
                                          "profiling-metrics",
                                          "profiling-metrics-log",
                                          "profiling-metrics-rate-us",
                                          "user-log",
                                          "criu",
                                          "systrap-preserve-adjust",
                                          "cpu-features",
                                          "xdp",
                                          "plugin-network",
                                          "application-core-tags",
                                          "rootfs-upper-tar-file",
                                          "fdlimit"};
constexpr const char* kForeignSwitches[] = {"overlay",
                                            "vfs2",
                                            "fuse",
                                            "lisafs",
                                            "directfs",
                                            "iouring",
                                            "fsgofer-host-uds",
                                            "oci-seccomp",
                                            "net-raw",
                                            "enable-raw",
                                            "allow-packet-socket-write",
                                            "gso",
                                            "software-gso",
                                            "gvisor-gro",
                                            "tx-checksum-offload",
                                            "rx-checksum-offload",
                                            "log-packets",
                                            "alsologtostderr",
                                            "cpu-num-from-quota",
                                            "ignore-cgroups",
                                            "systemd-cgroup",
                                            "buffer-pooling",
                                            "profile",
                                            "strace-event",
                                            "nvproxy",
                                            "nvproxy-docker",
                                            "tpuproxy",
                                            "reproduce-nat",
                                            "reproduce-nftables",
                                            "allow-flag-override",
                                            "enable-core-tags",
                                            "systrap-disable-syscall-patching",
                                            "vtpm",
                                            "EXPERIMENTAL-afxdp",
                                            "rootless-userns",
                                            "alloc-shared-memory",
                                            "detach-kernel",
                                            "TESTONLY-unsafe-nonroot",
                                            "TESTONLY-allow-packet-endpoint-write",
                                            "no-new-keyring",
                                            "no-subreaper",
                                            "no-pivot",
                                            "traceback-all"};

void Ignore(Flags& flags, const char* name, bool takes_value, std::vector<std::string>& ignored) {
  flags.Ignore(name, takes_value, [name, &ignored] { ignored.emplace_back(name); });
}

absl::Status Number(std::string_view text, int& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error == std::errc() && end == text.data() + text.size() && out >= 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("takes a number, not \"", base::Absl(text), "\""));
}

void AddStart(Flags& flags, OciOptions& options) {
  flags.Text("bundle", &options.bundle);
  flags.Text("b", &options.bundle);
  flags.Text("pid-file", &options.pid_file);
  flags.Text("console-socket", &options.console_socket);
  flags.Custom("preserve-fds",
               [&options](std::string_view text) { return Number(text, options.preserve_fds); });
  for (const char* name : {"no-pivot", "no-new-keyring", "no-subreaper"}) {
    Ignore(flags, name, false, options.global.ignored);
  }
}

void AddExec(Flags& flags, OciOptions& options) {
  flags.Text("process", &options.process_file);
  flags.Text("p", &options.process_file);
  flags.Text("pid-file", &options.pid_file);
  flags.Text("internal-pid-file", &options.internal_pid_file);
  flags.Text("console-socket", &options.console_socket);
  flags.Custom("preserve-fds",
               [&options](std::string_view text) { return Number(text, options.preserve_fds); });
  flags.Switch("detach", &options.detach);
  flags.Switch("d", &options.detach);
  flags.Switch("tty", &options.tty);
  flags.Switch("t", &options.tty);
  flags.Switch("no-new-privs", &options.no_new_privileges);
  flags.Switch("ignore-paused", &options.ignore_paused);
  flags.Text("cwd", &options.cwd);
  flags.Text("user", &options.user);
  flags.Text("u", &options.user);
  flags.List("env", &options.environment);
  flags.List("e", &options.environment);
  flags.List("cap", &options.capabilities);
  flags.List("c", &options.capabilities);
  flags.List("additional-gids", &options.additional_gids);
  flags.List("g", &options.additional_gids);
  for (const char* name : {"apparmor", "process-label", "cgroup"}) {
    Ignore(flags, name, true, options.global.ignored);
  }
}

void AddUpdate(Flags& flags, OciOptions& options) {
  flags.Text("resources", &options.resources);
  flags.Text("r", &options.resources);
  flags.Text("memory", &options.memory);
  flags.Text("memory-reservation", &options.memory_reservation);
  flags.Text("memory-swap", &options.memory_swap);
  flags.Text("cpu-share", &options.cpu_shares);
  flags.Text("cpu-quota", &options.cpu_quota);
  flags.Text("cpu-period", &options.cpu_period);
  flags.Text("cpu-burst", &options.cpu_burst);
  flags.Text("cpu-idle", &options.cpu_idle);
  flags.Text("cpuset-cpus", &options.cpuset_cpus);
  flags.Text("cpuset-mems", &options.cpuset_mems);
  flags.Text("pids-limit", &options.pids_limit);
  flags.Text("blkio-weight", &options.blkio_weight);
  for (const char* name : {"cpu-rt-period", "cpu-rt-runtime", "kernel-memory", "kernel-memory-tcp",
                           "l3-cache-schema", "mem-bw-schema"}) {
    Ignore(flags, name, true, options.global.ignored);
  }
}

void AddCommandFlags(const std::string& command, Flags& flags, OciOptions& options) {
  if (command == "create" || command == "run") AddStart(flags, options);
  if (command == "run") {
    flags.Switch("detach", &options.detach);
    flags.Switch("d", &options.detach);
    flags.Switch("keep", &options.keep);
  }
  if (command == "exec") AddExec(flags, options);
  if (command == "update") AddUpdate(flags, options);
  if (command == "delete") {
    flags.Switch("force", &options.force);
    flags.Switch("f", &options.force);
  }
  if (command == "kill") {
    flags.Switch("all", &options.all);
    flags.Switch("a", &options.all);
    Ignore(flags, "pid", true, options.global.ignored);
  }
  if (command == "list" || command == "ps") {
    flags.Text("format", &options.format);
    flags.Text("f", &options.format);
  }
  if (command == "list") {
    flags.Switch("quiet", &options.quiet);
    flags.Switch("q", &options.quiet);
  }
  if (command == "events") {
    flags.Switch("stats", &options.stats);
    flags.Text("interval", &options.interval);
    Ignore(flags, "stream", false, options.global.ignored);
  }
  if (command == "spec") {
    flags.Text("bundle", &options.bundle);
    flags.Text("b", &options.bundle);
    flags.Switch("rootless", &options.rootless);
  }
}

constexpr const char* kCommands[] = {"create", "start", "run",      "state",  "list", "kill",
                                     "delete", "exec",  "pause",    "resume", "ps",   "events",
                                     "update", "spec",  "features", "wait"};

}  // namespace

void AddGlobalFlags(Flags& flags, GlobalOptions& options) {
  flags.Text("root", &options.root);
  flags.Text("log", &options.log);
  flags.Text("log-format", &options.log_format);
  flags.Custom("rootless", [&options](std::string_view) {
    // "true", "false", "auto": what is possible shows when it is tried.
    options.rootless_given = true;
    return absl::OkStatus();
  });
  for (const char* name : kForeignValues) Ignore(flags, name, true, options.ignored);
  for (const char* name : kForeignSwitches) Ignore(flags, name, false, options.ignored);
}

bool IsOciCommand(const std::string& command) {
  return std::find(std::begin(kCommands), std::end(kCommands), command) != std::end(kCommands);
}

absl::StatusOr<OciOptions> ParseOci(const std::string& command,
                                    std::span<const std::string> arguments,
                                    const GlobalOptions& global) {
  OciOptions options;
  options.global = global;
  Flags flags(command);
  AddCommandFlags(command, flags, options);
  AddCommonFlags(flags, options.global.common);
  if (command != "spec") AddGlobalFlags(flags, options.global);

  // A program's own flags follow an exec's id.
  const bool program_follows = command == "exec";
  std::vector<std::string> operands;
  while (!arguments.empty()) {
    const auto rest = flags.Parse(arguments);
    if (!rest.ok()) return rest.status();
    if (rest->empty()) break;
    const bool ended = rest->data() != arguments.data() && *(rest->data() - 1) == "--";
    if (program_follows && (ended || !operands.empty())) {
      operands.insert(operands.end(), rest->begin(), rest->end());
      break;
    }
    operands.push_back(rest->front());
    arguments = rest->subspan(1);
    if (program_follows) {
      operands.insert(operands.end(), arguments.begin(), arguments.end());
      break;
    }
  }
  const bool takes_id = command != "list" && command != "spec" && command != "features";
  if (takes_id) {
    if (operands.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", command, "\" requires a minimum of 1 argument: the container's id"));
    }
    options.id = operands.front();
    operands.erase(operands.begin());
  }
  if (program_follows && !operands.empty() && operands.front() == "--") {
    operands.erase(operands.begin());
  }
  options.rest = std::move(operands);
  const size_t rest_max = command == "exec"     ? SIZE_MAX
                          : command == "kill"   ? 1
                          : command == "ps"     ? SIZE_MAX
                          : command == "delete" ? 0
                                                : 0;
  if (options.rest.size() > rest_max) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", command, "\" takes no argument \"", options.rest.front(), "\""));
  }
  return options;
}

}  // namespace cmd
