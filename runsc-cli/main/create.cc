// `create`: everything up to a sandbox that waits for its first process.
//
//   this process                         the supervisor (a fork)
//   configuration, state directory,
//   control groups, listening socket
//   fork ------------------------------> control groups, network namespace
//   hooks  <--- kNamespacesReady ------- terminal, gofer, sentry
//   kHooksDone ------------------------> (--network=sandbox: takes the interfaces over before
//   those) state, pid-file  <--- kReady ------- the sentry has its tree and its filter kCommit
//   ---------------------------> goes on alone
//
// Before kCommit the end of either one is the end of the other's work; after it the container is on
// record. So a kill at any moment leaves at most a directory, which `delete --force` removes.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "platform/base/strings.h"
#include "runsc-cli/main/compose.h"
#include "runsc-cli/main/container.h"
#include "runsc-cli/main/prepare.h"
#include "runsc-cli/main/supervisor.h"
#include "runsc-cli/oci/hooks.h"

namespace runsc {
namespace {

constexpr int kBacklog = 128;

absl::Status HostError(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", strerror(errno)));
}

absl::StatusOr<base::Fd> ListenIn(const oci::ContainerDir& directory) {
  base::Fd fd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return HostError("socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // A state directory's path may be longer than what fits; its descriptor is short.
  const std::string path =
      absl::StrCat("/proc/self/fd/", directory.fd(), "/", oci::ContainerDir::kControlSocket);
  memcpy(address.sun_path, path.data(), path.size());
  const mode_t mask = umask(0177);
  const int bound = bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  umask(mask);
  if (bound != 0 || listen(fd.get(), kBacklog) != 0) {
    return HostError(absl::StrCat("listen in ", directory.path()));
  }
  return fd;
}

bool HasLimits(const oci::Resources& r) {
  const auto given = [](const auto& value) { return value && *value > 0; };
  return given(r.memory_limit) || given(r.cpu_quota) || given(r.pids_limit) || !r.cpus.empty();
}

class Creator {
 public:
  Creator(const cmd::OciOptions& options, const oci::Logrus& log, bool foreground)
      : options_(options), log_(log), foreground_(foreground) {}

  absl::StatusOr<pid_t> Run() {
    if (absl::Status status = Load(); !status.ok()) return status;
    auto directory = oci::ContainerDir::Create(StateRoot(options_), options_.id);
    if (!directory.ok()) return directory.status();
    directory_.emplace(*std::move(directory));
    const absl::Status created = Create();
    if (created.ok()) return pid_;
    Undo();
    return created;
  }

 private:
  absl::Status Load() {
    if (absl::Status status = oci::ContainerDir::CheckId(options_.id); !status.ok()) return status;
    char* const real = realpath(options_.bundle.c_str(), nullptr);
    if (real == nullptr) return HostError(absl::StrCat("bundle ", options_.bundle));
    bundle_ = real;
    free(real);
    auto spec = oci::LoadSpec(bundle_);
    if (!spec.ok()) return spec.status();
    spec_ = *std::move(spec);
    if (!spec_.process) return absl::InvalidArgumentError("process: must be set");
    if (spec_.process->terminal && options_.console_socket.empty() && !foreground_) {
      return absl::InvalidArgumentError(
          "cannot allocate tty if runsc will detach without setting console socket");
    }
    if (!spec_.process->terminal && !options_.console_socket.empty()) {
      return absl::InvalidArgumentError(
          "cannot use console socket if runsc will not detach or allocate tty");
    }
    return absl::OkStatus();
  }

  absl::Status Create() {
    auto composed = ComposeSandbox(spec_, bundle_, options_.global.common);
    if (!composed.ok()) return composed.status();
    for (const std::string& warning : composed->warnings) log_.Warning(warning);
    if (options_.preserve_fds != 0) log_.Warning("--preserve-fds: without effect in the sandbox");
    SupervisorSetup setup;
    setup.sandbox = std::move(composed->sandbox);
    setup.console_socket = options_.console_socket;
    BootConfig& config = setup.sandbox.config;
    own_stack_ = config.network.own_stack;
    AddStdio(config);
    if (!config.terminal) config.stdio_terminals = 0;
    if (!options_.console_socket.empty()) config.stdio_terminals = config.stdio_open = 7;
    if (config.terminal && (config.stdio_terminals & 1) == 0) {
      return absl::InvalidArgumentError("the input device is not a terminal");
    }
    if (absl::Status status = Record(composed->rootfs); !status.ok()) return status;
    if (absl::Status status = MakeCgroups(); !status.ok()) return status;
    setup.cgroups = cgroups_;
    if (const oci::Namespace* const network = spec_.FindNamespace("network")) {
      setup.network_namespace = network->path;
    } else if (geteuid() == 0) {
      log_.Warning("the host's network is not available in the sandbox; it has loopback only");
    }
    auto listener = ListenIn(*directory_);
    if (!listener.ok()) return listener.status();
    setup.listener = *std::move(listener);
    auto line = CreateControlSocket();
    if (!line.ok()) return line.status();
    report_ = std::move(line->runsc);
    setup.report = std::move(line->sentry);

    pid_ = fork();
    if (pid_ < 0) return HostError("fork");
    if (pid_ == 0) {
      report_.Reset();
      const Timing timing(-1, "runsc");
      // The lock belongs to this open file, which a fork shares: the supervisor must not hold it.
      auto own = oci::ContainerDir::Open(StateRoot(options_), options_.id);
      if (!own.ok()) _exit(1);
      directory_.reset();
      RunSupervisor(std::move(setup), *own, timing);
    }
    setup.report.Reset();
    setup.listener.Reset();
    return Accompany();
  }

  absl::Status Record(const std::string& rootfs) {
    const auto text = oci::ReadTextFile(bundle_ + "/config.json");
    if (!text.ok()) return text.status();
    if (absl::Status status = directory_->WriteFile(oci::ContainerDir::kConfigFile, *text);
        !status.ok()) {
      return status;
    }
    state_.version = spec_.version;
    state_.id = options_.id;
    state_.bundle = bundle_;
    state_.rootfs = rootfs;
    state_.created = oci::TimeNow(true);
    state_.annotations = spec_.annotations;
    state_.owner = geteuid() == 0 ? "root" : absl::StrCat(geteuid());
    return absl::OkStatus();
  }

  absl::Status MakeCgroups() {
    auto planned = oci::PlanCgroups(spec_.cgroups_path, options_.id);
    if (!planned.ok()) return planned.status();
    cgroups_ = *std::move(planned);
    state_.cgroups = cgroups_.made;
    state_.cgroup_paths = cgroups_.paths;
    // Before they are made: whoever deletes the container finds them.
    if (absl::Status status = directory_->WriteState(state_); !status.ok()) return status;
    const absl::Status made =
        oci::MakeCgroups(cgroups_, !spec_.cgroups_path.empty() || HasLimits(spec_.resources));
    if (!made.ok()) return made;
    if (!cgroups_.warning.empty()) log_.Warning(cgroups_.warning);
    state_.cgroups = cgroups_.made;
    state_.cgroup_paths = cgroups_.paths;
    const absl::Status applied = oci::ApplyResources(cgroups_, spec_.resources);
    if (applied.ok() || geteuid() != 0) return absl::OkStatus();
    return absl::InternalError(absl::StrCat("error setting cgroup config: ", applied.message()));
  }

  // The state as hooks see it.
  std::string HookState() const {
    oci::Json json;
    json.Set("ociVersion", state_.version);
    json.Set("id", state_.id);
    json.Set("status", "creating");
    json.Set("pid", int64_t{pid_});
    json.Set("bundle", state_.bundle);
    oci::Json& annotations = json.Set("annotations", oci::Json::NewObject());
    for (const auto& [key, value] : state_.annotations) annotations.Set(key, value);
    return json.Dump();
  }

  absl::Status RunHooks() {
    const oci::Hooks& hooks = spec_.hooks;
    if (hooks.prestart.empty() && hooks.create_runtime.empty() && hooks.create_container.empty()) {
      return absl::OkStatus();
    }
    const std::string state = HookState();
    if (absl::Status status = oci::RunHooks(hooks.prestart, "prestart", state); !status.ok()) {
      return status;
    }
    if (absl::Status status = oci::RunHooks(hooks.create_runtime, "createRuntime", state);
        !status.ok()) {
      return status;
    }
    return oci::RunHooks(hooks.create_container, "createContainer", state);
  }

  absl::Status Accompany() {
    bool ready = false;
    bool hooks_run = false;
    while (!ready || !hooks_run) {
      const auto frame = ReceiveFrame(report_.get());
      if (!frame.ok()) {
        return absl::InternalError("the sandbox ended before it was ready (see --debug-log)");
      }
      switch (frame.value().kind) {
        case FrameKind::kNamespacesReady:
          state_.pid = pid_;
          state_.pid_start_time = oci::ProcessStartTime(pid_);
          if (absl::Status status = directory_->WriteState(state_); !status.ok()) return status;
          if (absl::Status status = RunHooks(); !status.ok()) return status;
          hooks_run = true;
          if (own_stack_) (void)SendFrame(report_.get(), FrameKind::kHooksDone, 0).ok();
          break;
        case FrameKind::kReady:
          ready = true;
          break;
        case FrameKind::kFailed:
          return absl::InternalError(
              absl::StrCat("unable to start container process: ", frame.value().text));
        default:
          break;
      }
    }
    if (absl::Status status = WritePidFile(options_.pid_file, pid_); !status.ok()) return status;
    (void)SendFrame(report_.get(), FrameKind::kCommit, 0).ok();
    return absl::OkStatus();
  }

  void Undo() {
    if (pid_ > 0) {
      // Its end ends the sandbox; by itself it does so in order.
      report_.Reset();
      pid_t reaped = 0;
      for (int i = 0; i < 100 && reaped == 0; ++i) {
        reaped = waitpid(pid_, nullptr, WNOHANG);
        if (reaped == 0) usleep(20'000);
      }
      if (reaped == 0) {
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
      }
    }
    oci::RemoveCgroups(cgroups_.made);
    const absl::Status removed = directory_->Remove();
    if (!removed.ok()) log_.Warning(base::Std(removed.message()));
  }

  const cmd::OciOptions& options_;
  const oci::Logrus& log_;
  const bool foreground_;
  std::string bundle_;
  oci::Spec spec_;
  std::optional<oci::ContainerDir> directory_;
  oci::ContainerState state_;
  oci::Cgroups cgroups_;
  base::Fd report_;
  bool own_stack_ = false;
  pid_t pid_ = -1;
};

}  // namespace

absl::StatusOr<pid_t> CreateContainer(const cmd::OciOptions& options, const oci::Logrus& log,
                                      bool foreground) {
  return Creator(options, log, foreground).Run();
}

}  // namespace runsc
