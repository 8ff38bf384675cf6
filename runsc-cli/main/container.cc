#include "runsc-cli/main/container.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "platform/base/strings.h"
#include "runsc-cli/main/supervisor.h"
#include "runsc-cli/oci/hooks.h"

namespace runsc {
namespace {

constexpr int kEndWaitMs = 2000;
constexpr useconds_t kReapedAfterUs = 100'000;

// The supervisor, if it is still that process.
base::Fd OpenSupervisor(const oci::ContainerState& state) {
  if (state.pid <= 0) return {};
  base::Fd process(static_cast<int>(syscall(SYS_pidfd_open, state.pid, 0)));
  if (process && oci::ProcessStartTime(state.pid) != state.pid_start_time) process.Reset();
  return process;
}

bool WaitForEnd(const base::Fd& process, int timeout_ms) {
  pollfd ended{process.get(), POLLIN, 0};
  return !process || poll(&ended, 1, timeout_ms) > 0;
}

}  // namespace

const char* StatusName(ContainerStatus status) {
  switch (status) {
    case ContainerStatus::kCreated:
      return "created";
    case ContainerStatus::kRunning:
      return "running";
    case ContainerStatus::kPaused:
      return "paused";
    case ContainerStatus::kStopped:
      break;
  }
  return "stopped";
}

std::string StateRoot(const cmd::OciOptions& options) {
  return options.global.root.empty() ? oci::DefaultRoot() : options.global.root;
}

absl::StatusOr<ControlClient> ControlClient::Connect(const oci::ContainerDir& directory) {
  auto socket = ConnectUnix(directory.fd(), oci::ContainerDir::kControlSocket, SOCK_SEQPACKET);
  if (!socket.ok()) return absl::NotFoundError("container not running");
  return ControlClient(*std::move(socket));
}

absl::StatusOr<Frame> ControlClient::Call(FrameKind kind, int64_t value, std::span<const int> fds) {
  const auto sent = SendFrame(socket_.get(), kind, value, {}, 0, fds);
  if (!sent.ok()) return absl::UnavailableError("container not running");
  auto answer = ReceiveFrame(socket_.get());
  if (!answer.ok()) return absl::UnavailableError("container not running");
  return std::move(answer).value();
}

absl::Status ControlClient::Request(FrameKind kind, int64_t value, const char* fallback) {
  const auto answer = Call(kind, value);
  if (!answer.ok()) return answer.status();
  if (answer->value == 0) return absl::OkStatus();
  if (!answer->text.empty()) return absl::FailedPreconditionError(answer->text);
  return absl::FailedPreconditionError(
      absl::StrCat(fallback, ": ", strerror(static_cast<int>(answer->value))));
}

absl::StatusOr<Container> Container::Open(const std::string& root, const std::string& id) {
  auto directory = oci::ContainerDir::Open(root, id);
  if (!directory.ok()) return directory.status();
  auto state = directory->ReadState();
  if (!state.ok()) return state.status();
  return Container(*std::move(directory), *std::move(state));
}

ContainerStatus Container::Status() const {
  auto client = ControlClient::Connect(directory_);
  if (!client.ok()) return ContainerStatus::kStopped;
  const auto answer = client->Call(FrameKind::kQuery);
  return answer.ok() ? static_cast<ContainerStatus>(answer->value) : ContainerStatus::kStopped;
}

absl::StatusOr<oci::Spec> Container::Spec() const {
  const auto text = directory_.ReadFile(oci::ContainerDir::kConfigFile);
  if (!text.ok()) return text.status();
  const auto json = oci::Json::Parse(*text);
  if (!json.ok()) return json.status();
  return oci::ParseSpec(*json);
}

oci::Cgroups Container::Cgroups() const {
  oci::Cgroups cgroups;
  cgroups.made = state_.cgroups;
  cgroups.paths = state_.cgroup_paths;
  return cgroups;
}

oci::Json Container::Describe(ContainerStatus status) const {
  oci::Json json;
  json.Set("ociVersion", state_.version);
  json.Set("id", state_.id);
  json.Set("pid", int64_t{status == ContainerStatus::kStopped ? 0 : state_.pid});
  json.Set("status", StatusName(status));
  json.Set("bundle", state_.bundle);
  json.Set("rootfs", state_.rootfs);
  json.Set("created", state_.created);
  if (!state_.annotations.empty()) {
    oci::Json& annotations = json.Set("annotations", oci::Json::NewObject());
    for (const auto& [key, value] : state_.annotations) annotations.Set(key, value);
  }
  json.Set("owner", state_.owner);
  return json;
}

absl::Status Container::Start(const oci::Logrus& log) {
  auto client = ControlClient::Connect(directory_);
  if (!client.ok()) {
    return absl::FailedPreconditionError("cannot start a container that has stopped");
  }
  const base::Fd supervisor = OpenSupervisor(state_);
  if (absl::Status started = client->Request(FrameKind::kStartGuest, 0, "start"); !started.ok()) {
    // One that could not be executed is the end of the container. A caller deletes it next, which
    // takes that he has noticed.
    if (Status() == ContainerStatus::kStopped && WaitForEnd(supervisor, kEndWaitMs)) {
      usleep(kReapedAfterUs);
    }
    return started;
  }
  const auto spec = Spec();
  if (!spec.ok()) return spec.status();
  const absl::Status hooks =
      oci::RunHooks(spec->hooks.poststart, "poststart", Describe(ContainerStatus::kRunning).Dump());
  if (!hooks.ok()) {
    log.Error(base::Std(hooks.message()));
    (void)Kill(SIGKILL, false);
    return hooks;
  }
  return absl::OkStatus();
}

absl::Status Container::Kill(int signal, bool all) const {
  auto client = ControlClient::Connect(directory_);
  if (!client.ok()) return client.status();
  const auto answer = client->Call(all ? FrameKind::kSignalAll : FrameKind::kSignalInit, signal);
  if (!answer.ok() || answer->value == ESRCH) {
    return absl::NotFoundError("container not running");
  }
  if (answer->value == 0) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("error signaling container: ", strerror(static_cast<int>(answer->value))));
}

void Container::EndProcesses() const {
  const base::Fd supervisor = OpenSupervisor(state_);
  // By itself it leaves in order, which takes a sentry that works; whatever happens to that, the
  // supervisor's death is the end of all of them.
  if (Kill(SIGKILL, false).ok() && WaitForEnd(supervisor, kEndWaitMs)) return;
  if (!supervisor) return;
  syscall(SYS_pidfd_send_signal, supervisor.get(), SIGKILL, nullptr, 0);
  (void)WaitForEnd(supervisor, kEndWaitMs);
}

absl::Status Container::Delete(bool force, const oci::Logrus& log) {
  const ContainerStatus status = Status();
  const bool alive = status != ContainerStatus::kStopped;
  if (alive && !force && status != ContainerStatus::kCreated) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot delete container ", state_.id, " that is not stopped: ", StatusName(status)));
  }
  // A supervisor that does not answer any more may still be about to end.
  const base::Fd supervisor = OpenSupervisor(state_);
  if (alive || (force && supervisor)) EndProcesses();
  if (!WaitForEnd(supervisor, kEndWaitMs)) {
    return absl::InternalError("the container's processes do not end");
  }
  oci::RemoveCgroups(state_.cgroups);
  const auto spec = Spec();
  if (spec.ok()) {
    const absl::Status hooks =
        oci::RunHooks(spec->hooks.poststop, "poststop", Describe(ContainerStatus::kStopped).Dump());
    if (!hooks.ok()) log.Warning(base::Std(hooks.message()));
  }
  return directory_.Remove();
}

absl::Status WritePidFile(const std::string& path, pid_t pid) {
  if (path.empty()) return absl::OkStatus();
  const size_t slash = path.rfind('/');
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  const std::string directory = slash == std::string::npos ? "" : path.substr(0, slash + 1);
  const std::string fresh = absl::StrCat(directory, ".", name, ".", getpid());
  const std::string text = absl::StrCat(pid);
  const base::Fd fd(open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
      rename(fresh.c_str(), path.c_str()) == 0) {
    return absl::OkStatus();
  }
  const int error = errno;
  unlink(fresh.c_str());
  return absl::InternalError(absl::StrCat("write ", path, ": ", strerror(error)));
}

}  // namespace runsc
