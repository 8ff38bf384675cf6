#include "runsc-cli/main/prepare.h"

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runsc-cli/main/cage.h"
#include "runsc-cli/main/take_network.h"

namespace runsc {
namespace {

// A sandbox of a few processes with a few files each works with this many descriptors in the
// sentry.
constexpr rlim_t kOpenFilesMin = 256;
constexpr size_t kVolumesMax = 100;

absl::Status AddAttachPoints(const cmd::DoOptions& options, SandboxSpec& prepared) {
  bool is_directory = false;
  auto root = OpenAttachPoint(options.root, "root", is_directory);
  if (!root.ok()) return root.status();
  if (!is_directory) {
    return absl::InvalidArgumentError(
        absl::StrCat("the root ", options.root, " is not a directory; unpack the image first"));
  }
  prepared.config.attach_points.push_back({"root", "/", true, true});
  prepared.attach_fds.push_back(std::move(*root));

  if (options.volumes.size() > kVolumesMax) {
    return absl::InvalidArgumentError(absl::StrCat("more than ", kVolumesMax, " volumes"));
  }
  for (const cmd::Volume& volume : options.volumes) {
    auto fd = OpenAttachPoint(volume.host_path, "volume source", is_directory);
    if (!fd.ok()) return fd.status();
    prepared.config.attach_points.push_back({absl::StrCat("volume", prepared.attach_fds.size()),
                                             volume.guest_path, volume.read_only, is_directory});
    prepared.attach_fds.push_back(std::move(*fd));
  }
  return absl::OkStatus();
}

// execve's rule: the last assignment of a name is the one that counts for getenv's users only if
// the first is gone.
std::vector<std::string> MergedEnvironment(const std::vector<std::string>& additions) {
  std::vector<std::string> merged;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    merged.emplace_back(*entry);
  }
  for (const std::string& addition : additions) {
    const std::string name = addition.substr(0, addition.find('=') + 1);
    std::erase_if(merged, [&name](const std::string& entry) { return entry.starts_with(name); });
    merged.push_back(addition);
  }
  return merged;
}

void AddCallerState(const cmd::DoOptions& options, BootConfig& config) {
  config.uid = options.uid.value_or(getuid());
  config.gid = options.gid.value_or(getgid());
  if (!options.uid && !options.gid) {
    config.groups.resize(static_cast<size_t>(std::max(getgroups(0, nullptr), 0)));
    const int count = getgroups(static_cast<int>(config.groups.size()), config.groups.data());
    config.groups.resize(static_cast<size_t>(std::max(count, 0)));
  }
  config.umask = umask(022);
  umask(static_cast<mode_t>(config.umask));
  for (size_t i = 0; i < config.limits.size(); ++i) {
    getrlimit(static_cast<__rlimit_resource_t>(i), &config.limits[i]);
  }
  char name[HOST_NAME_MAX + 1] = {};
  if (gethostname(name, sizeof(name) - 1) == 0) config.host_name = name;

  config.cwd = options.cwd;
  if (config.cwd.empty()) {
    char* const here = options.root == "/" ? get_current_dir_name() : nullptr;
    config.cwd = here != nullptr && here[0] == '/' ? here : "/";
    free(here);
  }
}

}  // namespace

absl::StatusOr<base::Fd> OpenAttachPoint(const std::string& path, const char* what,
                                         bool& is_directory) {
  base::Fd fd(open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!fd) {
    return absl::NotFoundError(
        absl::StrCat("cannot open the ", what, " ", path, ": ", strerror(errno)));
  }
  struct stat status{};
  if (fstat(fd.get(), &status) != 0) {
    return absl::InternalError(absl::StrCat("cannot look at ", path, ": ", strerror(errno)));
  }
  is_directory = S_ISDIR(status.st_mode);
  if (faccessat(AT_FDCWD, path.c_str(), is_directory ? R_OK | X_OK : R_OK, AT_EACCESS) != 0) {
    return absl::PermissionDeniedError(
        absl::StrCat("the ", what, " ", path, " is not readable: ", strerror(errno),
                     "; change its mode, or run as its owner or as root"));
  }
  return fd;
}

void AddStdio(ProcessConfig& config) {
  config.stdio_open = 0;
  for (int fd = 0; fd < 3; ++fd) {
    if (fcntl(fd, F_GETFD) < 0) {
      // Keeps the number from being given to something that the guest must not have.
      [[maybe_unused]] const int filler = open("/dev/null", O_RDWR);
      continue;
    }
    config.stdio_open |= 1U << fd;
    if (isatty(fd) != 0) config.stdio_terminals |= 1U << fd;
  }
  if ((config.stdio_terminals & 1) != 0) {
    ioctl(0, TIOCGWINSZ, &config.terminal_size);
  }
}

absl::StatusOr<SandboxSpec> Prepare(const cmd::DoOptions& options) {
  SandboxSpec prepared;
  prepared.debug_log = options.common.debug_log;
  BootConfig& config = prepared.config;
  AddStdio(config);
  const absl::Status attached = AddAttachPoints(options, prepared);
  if (!attached.ok()) return attached;
  AddCallerState(options, config);
  config.arguments = options.command;
  config.environment = MergedEnvironment(options.environment);
  config.platform = options.common.platform;
  config.rewrite = options.common.rewrite == "on";
  config.strace = options.common.strace;
  config.debug = options.common.debug;
  config.has_log = !options.common.debug_log.empty();
  config.provoke_violation = options.provoke_violation;
  config.single_owner_view = !MayMakeNamespaces();
  if (options.common.network == "sandbox") {
    config.network.own_stack = true;
    if (!options.network_namespace.empty()) {
      TakenNetwork taken;
      const absl::Status status = TakeNetwork(options.network_namespace, taken);
      if (!status.ok()) return status;
      config.network = std::move(taken.config);
      prepared.link_fds = std::move(taken.links);
    }
  }
  return prepared;
}

absl::StatusOr<base::Fd> OpenHelperProgram(const std::string& name) {
  char self[PATH_MAX] = {};
  if (readlink("/proc/self/exe", self, sizeof(self) - 1) <= 0) {
    return absl::InternalError(
        absl::StrCat("cannot read /proc/self/exe: ", strerror(errno), "; is /proc mounted?"));
  }
  const std::string directory(self, static_cast<size_t>(strrchr(self, '/') - self));
  base::Fd fd;
  for (const std::string& path : {absl::StrCat(directory, "/", name),
                                  absl::StrCat(directory, "/../libexec/ravelin/", name)}) {
    fd = base::Fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd) break;
  }
  if (!fd) {
    return absl::NotFoundError(absl::StrCat("cannot find ", name, " in ", directory, " nor in ",
                                            directory, "/../libexec/ravelin; reinstall runsc"));
  }
  struct stat status{};
  if (fstat(fd.get(), &status) != 0)
    return absl::InternalError(absl::StrCat("cannot look at ", name));
  if ((status.st_mode & 0111) == 0111 && (status.st_mode & 0004) != 0) return fd;

  base::Fd copy(memfd_create(name.c_str(), MFD_CLOEXEC));
  off_t left = status.st_size;
  while (copy && left > 0) {
    const ssize_t sent = sendfile(copy.get(), fd.get(), nullptr, static_cast<size_t>(left));
    if (sent <= 0) break;
    left -= sent;
  }
  if (!copy || left != 0) {
    return absl::InternalError(absl::StrCat("cannot copy ", name,
                                            " into a memfd: ", strerror(errno),
                                            "; or make it executable for all (chmod a+rx)"));
  }
  // A writable descriptor would make execve say ETXTBSY.
  base::Fd readable(open(absl::StrCat("/proc/self/fd/", copy.get()).c_str(), O_RDONLY | O_CLOEXEC));
  return readable;
}

absl::Status RaiseLimits() {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  if (files.rlim_max < kOpenFilesMin) {
    const rlimit more{65536, 65536};
    if (setrlimit(RLIMIT_NOFILE, &more) != 0) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the limit of open files is ", files.rlim_max,
                       " and a sandbox needs at least ", kOpenFilesMin, "; raise it (ulimit -n)"));
    }
  } else {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  // The memory pool is one large sparse file.
  rlimit size{};
  getrlimit(RLIMIT_FSIZE, &size);
  if (size.rlim_cur != RLIM_INFINITY) {
    const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
    const rlimit highest{size.rlim_max, size.rlim_max};
    if (setrlimit(RLIMIT_FSIZE, &unlimited) != 0 &&
        (size.rlim_max != RLIM_INFINITY || setrlimit(RLIMIT_FSIZE, &highest) != 0)) {
      return absl::ResourceExhaustedError(
          "the limit of file size applies to the sandbox's memory; lift it (ulimit -f unlimited)");
    }
  }
  return absl::OkStatus();
}

}  // namespace runsc
