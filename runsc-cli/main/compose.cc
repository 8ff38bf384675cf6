#include "runsc-cli/main/compose.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "platform/base/strings.h"
#include "runsc-cli/main/cage.h"
#include "runsc-cli/main/prepare.h"
#include "runsc-cli/oci/seccomp_profile.h"

namespace runsc {
namespace {

constexpr size_t kMountsMax = 500;
constexpr size_t kPasswdBytesMax = 1 << 20;

struct MountOption {
  const char* name;
  uint64_t set;
  uint64_t clear;
};
constexpr MountOption kMountOptions[] = {{"ro", MS_RDONLY, 0},
                                         {"rw", 0, MS_RDONLY},
                                         {"nosuid", MS_NOSUID, 0},
                                         {"suid", 0, MS_NOSUID},
                                         {"nodev", MS_NODEV, 0},
                                         {"dev", 0, MS_NODEV},
                                         {"noexec", MS_NOEXEC, 0},
                                         {"exec", 0, MS_NOEXEC},
                                         {"sync", MS_SYNCHRONOUS, 0},
                                         {"async", 0, MS_SYNCHRONOUS},
                                         {"noatime", MS_NOATIME, 0},
                                         {"atime", 0, MS_NOATIME},
                                         {"nodiratime", MS_NODIRATIME, 0},
                                         {"diratime", 0, MS_NODIRATIME},
                                         {"relatime", MS_RELATIME, 0},
                                         {"norelatime", 0, MS_RELATIME},
                                         {"strictatime", MS_STRICTATIME, 0},
                                         {"nostrictatime", 0, MS_STRICTATIME},
                                         // Of every mount below, too: there is none.
                                         {"rro", MS_RDONLY, 0},
                                         {"rrw", 0, MS_RDONLY},
                                         {"rnosuid", MS_NOSUID, 0},
                                         {"rnodev", MS_NODEV, 0},
                                         {"rnoexec", MS_NOEXEC, 0},
                                         {"rnoatime", MS_NOATIME, 0},
                                         // Known, without an effect inside a sandbox.
                                         {"bind", 0, 0},
                                         {"rbind", 0, 0},
                                         {"private", 0, 0},
                                         {"rprivate", 0, 0},
                                         {"shared", 0, 0},
                                         {"rshared", 0, 0},
                                         {"slave", 0, 0},
                                         {"rslave", 0, 0},
                                         {"unbindable", 0, 0},
                                         {"runbindable", 0, 0},
                                         {"defaults", 0, 0},
                                         {"silent", 0, 0},
                                         {"loud", 0, 0},
                                         {"mand", 0, 0},
                                         {"nomand", 0, 0},
                                         {"iversion", 0, 0},
                                         {"noiversion", 0, 0},
                                         {"dirsync", 0, 0},
                                         {"remount", 0, 0},
                                         {"lazytime", 0, 0},
                                         {"nolazytime", 0, 0},
                                         {"acl", 0, 0},
                                         {"noacl", 0, 0},
                                         {"tmpcopyup", 0, 0},
                                         {"nosymfollow", 0, 0},
                                         {"symfollow", 0, 0},
                                         {"z", 0, 0},
                                         {"Z", 0, 0},
                                         {"U", 0, 0},
                                         {"rsuid", 0, MS_NOSUID},
                                         {"rdev", 0, MS_NODEV},
                                         {"rexec", 0, MS_NOEXEC},
                                         {"ratime", 0, MS_NOATIME},
                                         {"nofail", 0, 0}};

bool IsBind(const oci::Mount& mount) {
  if (mount.type == "bind") return true;
  return std::any_of(mount.options.begin(), mount.options.end(), [](const std::string& option) {
    return option == "bind" || option == "rbind";
  });
}

// Flags, and what is left for the file system itself.
void TranslateOptions(const oci::Mount& mount, GuestMount& out) {
  std::vector<std::string> data;
  for (const std::string& option : mount.options) {
    const auto* const known =
        std::find_if(std::begin(kMountOptions), std::end(kMountOptions),
                     [&](const MountOption& candidate) { return option == candidate.name; });
    if (known != std::end(kMountOptions)) {
      out.flags = (out.flags & ~known->clear) | known->set;
    } else {
      data.push_back(option);
    }
  }
  if (out.type == "tmpfs") out.data = absl::StrJoin(data, ",");
}

// Without symbolic links and "..": the guest's names.
std::string CleanPath(const std::string& path) {
  std::vector<absl::string_view> parts;
  for (const absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (part == ".") continue;
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
    } else {
      parts.push_back(part);
    }
  }
  return absl::StrCat("/", absl::StrJoin(parts, "/"));
}

class Composer {
 public:
  Composer(const oci::Spec& spec, const std::string& bundle, Composed& out)
      : spec_(spec), bundle_(bundle), out_(out), config_(out.sandbox.config) {}

  absl::Status AddRoot() {
    out_.rootfs = spec_.root_path.starts_with('/') ? spec_.root_path
                                                   : absl::StrCat(bundle_, "/", spec_.root_path);
    char* const real = realpath(out_.rootfs.c_str(), nullptr);
    if (real == nullptr) {
      return absl::NotFoundError(
          absl::StrCat("invalid rootfs: root.path ", out_.rootfs, ": ", strerror(errno)));
    }
    out_.rootfs = real;
    free(real);
    bool is_directory = false;
    auto fd = OpenAttachPoint(out_.rootfs, "root.path", is_directory);
    if (!fd.ok()) return fd.status();
    if (!is_directory) {
      return absl::InvalidArgumentError(
          absl::StrCat("invalid rootfs: root.path ", out_.rootfs, " is not a directory"));
    }
    Attach("root", "/", *std::move(fd), spec_.root_read_only, true);
    return absl::OkStatus();
  }

  absl::Status AddMounts() {
    if (spec_.mounts.size() > kMountsMax) {
      return absl::InvalidArgumentError(absl::StrCat("mounts: more than ", kMountsMax));
    }
    // The devices and terminals that every container has, whether the configuration mentions the
    // directories or not.
    if (!Mentions("/dev")) {
      config_.mounts.push_back(
          {"/dev", "tmpfs", "tmpfs", "mode=755,size=65536k", "", MS_NOSUID | MS_NOEXEC, true});
    }
    for (size_t i = 0; i < spec_.mounts.size(); ++i) {
      if (absl::Status status = AddMount(spec_.mounts[i], i); !status.ok()) return status;
    }
    if (!Mentions("/dev/pts")) {
      config_.mounts.push_back(
          {"/dev/pts", "devpts", "devpts", "", "", MS_NOSUID | MS_NOEXEC, true});
    }
    return absl::OkStatus();
  }

 private:
  bool Mentions(const std::string& path) const {
    return std::any_of(spec_.mounts.begin(), spec_.mounts.end(), [&](const oci::Mount& mount) {
      return CleanPath(mount.destination) == path;
    });
  }

  void Attach(const std::string& name, const std::string& path, base::Fd fd, bool read_only,
              bool is_directory) {
    config_.attach_points.push_back({name, path, read_only, is_directory});
    out_.sandbox.attach_fds.push_back(std::move(fd));
  }

  absl::Status AddMount(const oci::Mount& mount, size_t index) {
    GuestMount out;
    out.destination = CleanPath(mount.destination);
    out.type = IsBind(mount) ? "bind" : mount.type.empty() ? "tmpfs" : mount.type;
    out.source = mount.source.empty() ? "none" : mount.source;
    // Docker's tmpfs over /dev forbids nothing that devices need.
    TranslateOptions(mount, out);
    if (out.type == "bind") {
      const std::string source =
          mount.source.starts_with('/') ? mount.source : absl::StrCat(bundle_, "/", mount.source);
      auto fd = OpenAttachPoint(source, "mount source", out.is_directory);
      if (!fd.ok()) {
        return absl::NotFoundError(absl::StrCat("mounts[", index, "].source: error mounting \"",
                                                mount.source, "\" to rootfs at \"",
                                                mount.destination, "\": ", fd.status().message()));
      }
      out.attach = absl::StrCat("volume", config_.attach_points.size());
      Attach(out.attach, out.destination, *std::move(fd), (out.flags & MS_RDONLY) != 0,
             out.is_directory);
    }
    if (out.type == "cgroup" || out.type == "cgroup2") out.flags |= MS_RDONLY;
    config_.mounts.push_back(std::move(out));
    return absl::OkStatus();
  }

  const oci::Spec& spec_;
  const std::string bundle_;
  Composed& out_;
  BootConfig& config_;
};

// HOME of /etc/passwd in the container, as runc looks it up; the file is the image's, so below its
// root.
std::string HomeOf(const std::string& rootfs, uint32_t uid) {
  const base::Fd root(open(rootfs.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  open_how how{};
  how.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  const base::Fd fd(
      static_cast<int>(syscall(SYS_openat2, root.get(), "etc/passwd", &how, sizeof(how))));
  struct stat status{};
  std::string text;
  if (fd && fstat(fd.get(), &status) == 0 && S_ISREG(status.st_mode)) {
    char buffer[4096];
    ssize_t got = 0;
    while (text.size() < kPasswdBytesMax && (got = read(fd.get(), buffer, sizeof(buffer))) > 0) {
      text.append(buffer, static_cast<size_t>(got));
    }
  }
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ':');
    if (fields.size() >= 6 && fields[2] == absl::StrCat(uid) && !fields[5].empty()) {
      return std::string(fields[5]);
    }
  }
  return "/";
}

// The id inside of the host's id `own`; root's if the configuration does not say.
uint32_t InsideOf(const std::vector<oci::IdMapping>& mappings, uint32_t own) {
  for (const oci::IdMapping& mapping : mappings) {
    if (own - mapping.host_id < mapping.size) return mapping.container_id + own - mapping.host_id;
  }
  return 0;
}

// What the configuration asks for and a sandbox does not do: said once, in the log.
void AddWarnings(const oci::Spec& spec, std::vector<std::string>& warnings) {
  const auto names = [](const auto& list, auto name) {
    std::vector<std::string> out;
    for (const auto& item : list) out.push_back(name(item));
    return absl::StrJoin(out, ", ");
  };
  if (!spec.sysctl.empty()) {
    warnings.push_back(absl::StrCat("linux.sysctl: without effect in the sandbox: ",
                                    names(spec.sysctl, [](const auto& s) { return s.first; })));
  }
  if (!spec.devices.empty()) {
    warnings.push_back(
        absl::StrCat("linux.devices: not available in the sandbox: ",
                     names(spec.devices, [](const oci::Device& d) { return d.path; })));
  }
  if (const oci::Process& process = *spec.process;
      !process.apparmor_profile.empty() || !process.selinux_label.empty()) {
    warnings.push_back(
        "process.apparmorProfile and process.selinuxLabel: without effect on the sandbox");
  }
  if (geteuid() == 0 && !spec.uid_mappings.empty()) {
    warnings.push_back("linux.uidMappings: ids of files are the host's in the sandbox");
  }
}

uint32_t CpusOf(const oci::Resources& resources) {
  uint32_t count = 0;
  if (resources.cpu_quota && *resources.cpu_quota > 0) {
    const auto quota = static_cast<uint64_t>(*resources.cpu_quota);
    const uint64_t period = std::max<uint64_t>(resources.cpu_period.value_or(100'000), 1);
    count = static_cast<uint32_t>(std::clamp<uint64_t>((quota + period - 1) / period, 1, 4096));
  }
  if (!resources.cpus.empty()) {
    uint32_t listed = 0;
    for (const std::string& part : std::vector<std::string>(absl::StrSplit(resources.cpus, ','))) {
      const std::vector<std::string> ends = absl::StrSplit(part, '-');
      const auto first = static_cast<uint32_t>(strtoul(ends[0].c_str(), nullptr, 10));
      const auto last = static_cast<uint32_t>(strtoul(ends.back().c_str(), nullptr, 10));
      listed += last >= first ? last - first + 1 : 0;
    }
    if (listed != 0 && (count == 0 || listed < count)) count = listed;
  }
  return count;
}

}  // namespace

absl::StatusOr<ProcessConfig> ComposeProcess(const oci::Process& process,
                                             const oci::SeccompProfile* profile,
                                             const std::string& rootfs,
                                             std::vector<std::string>& warnings) {
  ProcessConfig config;
  config.arguments = process.args;
  config.environment = process.env;
  config.cwd = process.cwd;
  config.uid = process.user.uid;
  config.gid = process.user.gid;
  config.groups = process.user.additional_gids;
  config.umask = process.user.umask.value_or(0022) & 0777;
  config.no_new_privileges = process.no_new_privileges;
  config.oom_score_adjust = std::clamp(process.oom_score_adj.value_or(0), -1000, 1000);
  config.terminal = process.terminal;
  config.terminal_size.ws_row = process.console_rows;
  config.terminal_size.ws_col = process.console_columns;
  const bool has_home =
      std::any_of(process.env.begin(), process.env.end(),
                  [](const std::string& entry) { return entry.starts_with("HOME="); });
  if (!has_home) config.environment.push_back("HOME=" + HomeOf(rootfs, process.user.uid));

  // Those of the caller, as without a sandbox, and what the configuration says. They are the
  // guest's alone: the host is asked for nothing.
  for (size_t i = 0; i < config.limits.size(); ++i) {
    getrlimit(static_cast<__rlimit_resource_t>(i), &config.limits[i]);
  }
  for (const oci::Rlimit& limit : process.rlimits) {
    config.limits[static_cast<size_t>(limit.resource)] = {limit.soft, limit.hard};
  }
  config.has_capabilities = true;
  if (process.capabilities) {
    const oci::Capabilities& sets = *process.capabilities;
    config.capabilities = {sets.bounding, sets.effective, sets.inheritable, sets.permitted,
                           sets.ambient};
    if (!sets.unknown.empty()) {
      warnings.push_back(absl::StrCat("process.capabilities: ignoring unknown or unavailable ",
                                      absl::StrJoin(sets.unknown, ", ")));
    }
  }
  if (profile != nullptr) {
    auto compiled = oci::CompileSeccomp(*profile);
    if (!compiled.ok()) return compiled.status();
    config.seccomp = std::move(compiled->program);
  }
  return config;
}

absl::StatusOr<Composed> ComposeSandbox(const oci::Spec& spec, const std::string& bundle,
                                        const cmd::CommonOptions& common) {
  Composed out;
  Composer composer(spec, bundle, out);
  if (absl::Status status = composer.AddRoot(); !status.ok()) return status;
  if (absl::Status status = composer.AddMounts(); !status.ok()) return status;
  auto process = ComposeProcess(*spec.process, spec.seccomp ? &*spec.seccomp : nullptr, out.rootfs,
                                out.warnings);
  if (!process.ok()) return process.status();
  if (!spec.hooks.start_container.empty()) {
    return absl::UnimplementedError(
        "hooks.startContainer: hooks that run inside the sandbox are not supported");
  }
  AddWarnings(spec, out.warnings);
  BootConfig& config = out.sandbox.config;
  config.root_shared = common.file_access == "shared";
  static_cast<ProcessConfig&>(config) = *std::move(process);
  config.container = true;
  config.host_name = spec.host_name;
  if (config.host_name.empty()) {
    char name[HOST_NAME_MAX + 1] = {};
    if (gethostname(name, sizeof(name) - 1) == 0) config.host_name = name;
  }
  config.domain_name = spec.domain_name;
  config.masked_paths = spec.masked_paths;
  config.read_only_paths = spec.read_only_paths;
  config.cpu_count = CpusOf(spec.resources);
  if (spec.resources.memory_limit && *spec.resources.memory_limit > 0) {
    config.memory_bytes = static_cast<uint64_t>(*spec.resources.memory_limit);
  }
  if (spec.resources.pids_limit && *spec.resources.pids_limit > 0) {
    config.tasks_max =
        static_cast<uint32_t>(std::min<int64_t>(*spec.resources.pids_limit, 1 << 22));
  }
  config.host_network = common.network.empty() || common.network == "host";
  config.platform = common.platform;
  config.network.own_stack = common.network == "sandbox";
  config.rewrite = common.rewrite == "on";
  config.strace = common.strace;
  config.debug = common.debug;
  config.has_log = !common.debug_log.empty();
  config.single_owner_view = !MayMakeNamespaces();
  out.sandbox.own_uid_inside = InsideOf(spec.uid_mappings, geteuid());
  out.sandbox.own_gid_inside = InsideOf(spec.gid_mappings, getegid());
  out.sandbox.debug_log = common.debug_log;
  return out;
}

}  // namespace runsc
