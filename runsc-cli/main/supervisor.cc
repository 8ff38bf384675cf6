#include "runsc-cli/main/supervisor.h"

#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "platform/base/log.h"
#include "platform/base/strings.h"
#include "platform/base/text_pages.h"
#include "runsc-cli/main/launch.h"
#include "runsc-cli/main/process_title.h"
#include "runsc-cli/main/signals.h"
#include "runsc-cli/main/take_network.h"

namespace runsc {
namespace {

constexpr int kLeanAfterMs = 1000;
constexpr size_t kClientsMax = 4000;
constexpr int kKilled = 128 + SIGKILL;
constexpr int kCreateWaitMs = 60'000;

class Supervisor : public Sandbox {
 public:
  Supervisor(SupervisorSetup setup, const oci::ContainerDir& directory, const Timing& timing)
      : Sandbox(timing), setup_(std::move(setup)), directory_(directory) {}

  // Up to the sandbox's processes. What goes wrong is for `create`.
  absl::Status Prepare();
  // Until the end. The exit status.
  int Supervise();
  // A sandbox that has failed before it was on record stays until `create` has taken notice: its
  // hooks still look at this process's namespaces.
  void AwaitCreate();
  void Fail(std::string_view line) {
    (void)SendFrame(setup_.report.get(), FrameKind::kFailed, kOwnFailure, line).ok();
  }

 private:
  // One command of runsc. `id` names its request to the sentry.
  struct Client {
    base::Fd socket;
    uint32_t id = 0;
    bool is_exec = false;
    bool exec_ended = false;
    bool waits = false;
    bool signals = false;  // Its signal has not been confirmed.
  };

  absl::Status EnterNetwork();
  absl::Status TakeInterfaces();
  void OnFrame(const Frame& frame) override;
  void OnFailure(const std::string& line) override;
  bool done() const override { return exit_status_.has_value(); }
  void OnSignals();
  void OnReport();
  void Accept();
  // False: the connection is over.
  bool OnClient(Client& client);
  void OnRequest(Client& client, Frame& frame);
  void OnKill(Client& client, const Frame& frame);
  void OnPause(Client& client, bool pause);
  void Reply(const Client& client, int64_t value, std::string_view text = {}) {
    // A client that has gone, or does not read, gets no answer.
    (void)SendFrame(client.socket.get(), FrameKind::kReply, value, text).ok();
  }
  // To the sentry, in the client's name.
  void Forward(const Client& client, const Frame& frame, std::span<const int> fds = {});
  Client* Find(uint32_t id);
  void Finish(int status);
  void SendWindowSize();
  // For lack of memory the kernel chooses its victim among all processes of the sandbox; the others
  // follow, with stories of their own.
  int StatusOfFailure(int otherwise) const {
    return oci::OomKills(setup_.cgroups) > 0 ? kKilled : otherwise;
  }

  SupervisorSetup setup_;
  const oci::ContainerDir& directory_;
  base::Fd signals_;
  std::vector<Client> clients_;
  uint32_t next_id_ = 1;
  ContainerStatus status_ = ContainerStatus::kCreated;
  bool ready_ = false;
  uint32_t starter_ = 0;  // The client whose start has not been answered.
  std::optional<int> exit_status_;
};

// A new network namespace's lo is down.
absl::Status RaiseLoopback() {
  const base::Fd probe(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = {};
  strncpy(request.ifr_name, "lo", sizeof(request.ifr_name) - 1);
  if (!probe || ioctl(probe.get(), SIOCGIFFLAGS, &request) != 0)
    return absl::InternalError(absl::StrCat("look at lo: ", strerror(errno)));
  request.ifr_flags = static_cast<int16_t>(request.ifr_flags | IFF_UP);
  if (ioctl(probe.get(), SIOCSIFFLAGS, &request) != 0)
    return absl::InternalError(absl::StrCat("bring up lo: ", strerror(errno)));
  return absl::OkStatus();
}

absl::Status Supervisor::EnterNetwork() {
  if (!setup_.network_namespace) return absl::OkStatus();
  const std::string& path = *setup_.network_namespace;
  if (path.empty()) {
    if (unshare(CLONE_NEWNET) == 0) return RaiseLoopback();
    if (errno == EPERM) {
      // An ordinary user cannot have one that others could configure, and the container must not
      // get the user's: it has the sentry's loopback.
      setup_.sandbox.config.host_network = false;
      return absl::OkStatus();
    }
    return absl::InternalError(absl::StrCat("create the network namespace: ", strerror(errno)));
  }
  const base::Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd || setns(fd.get(), CLONE_NEWNET) != 0) {
    return absl::InternalError(
        absl::StrCat("linux.namespaces: join the network namespace ", path, ": ", strerror(errno)));
  }
  return absl::OkStatus();
}

// Hooks have put them there and given them their addresses (docker, CNI).
absl::Status Supervisor::TakeInterfaces() {
  pollfd ready{setup_.report.get(), POLLIN, 0};
  while (poll(&ready, 1, -1) < 0 && errno == EINTR) {
  }
  const base::Result<Frame> frame = ReceiveFrame(setup_.report.get());
  if (!frame.ok() || frame.value().kind != FrameKind::kHooksDone)
    return absl::InternalError("the hooks were not run");
  // Without a namespace of the container's own there is nothing to take.
  if (!setup_.network_namespace || !MayMakeNamespaces()) return absl::OkStatus();
  TakenNetwork taken;
  if (absl::Status status = TakeNetwork("/proc/self/ns/net", taken); !status.ok()) return status;
  setup_.sandbox.config.network = std::move(taken.config);
  setup_.sandbox.link_fds = std::move(taken.links);
  return absl::OkStatus();
}

absl::Status Supervisor::Prepare() {
  setsid();
  prctl(PR_SET_NAME, "runsc-container", 0, 0, 0);
  ShowCommandLine(setup_.sandbox.config.arguments);
  ::signal(SIGCHLD, SIG_DFL);
  signals_ = TakeSignals();
  if (absl::Status status = oci::EnterCgroups(setup_.cgroups); !status.ok()) return status;
  if (absl::Status status = EnterNetwork(); !status.ok()) return status;
  (void)SendFrame(setup_.report.get(), FrameKind::kNamespacesReady, 0).ok();
  BootConfig& config = setup_.sandbox.config;
  if (config.network.own_stack) {
    if (absl::Status status = TakeInterfaces(); !status.ok()) return status;
  }
  if (!setup_.console_socket.empty()) {
    const absl::Status opened = OpenHostTerminal(setup_.console_socket, config.terminal_size);
    if (!opened.ok()) return opened;
  }
  if (absl::Status status = OpenLogs(setup_.sandbox); !status.ok()) return status;
  if (absl::Status status = StartProcesses(setup_.sandbox); !status.ok()) return status;
  setup_.sandbox.attach_fds.clear();
  setup_.sandbox.link_fds.clear();
  // The container's pipes end when its processes have closed them. A terminal stays ours: its size
  // changes.
  const base::Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!config.terminal) dup2(null.get(), STDIN_FILENO);
  dup2(null.get(), STDOUT_FILENO);
  dup2(null.get(), STDERR_FILENO);
  return absl::OkStatus();
}

void Supervisor::SendWindowSize() {
  winsize size{};
  if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0) return;
  (void)SendFrame(control(), FrameKind::kWindowSize,
                  PackWindowSize(size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel))
      .ok();
}

void Supervisor::OnSignals() {
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
    const int signal = static_cast<int>(info.ssi_signo);
    switch (signal) {
      case SIGWINCH:
        SendWindowSize();
        break;
      case SIGCHLD:  // The pid descriptors tell.
      case SIGPIPE:
      case SIGTTIN:
      case SIGTTOU:
        break;
      default:
        if (status_ == ContainerStatus::kCreated) {
          Finish(128 + signal);
        } else {
          (void)SendFrame(control(), FrameKind::kSignal, signal).ok();
        }
    }
  }
}

Supervisor::Client* Supervisor::Find(uint32_t id) {
  for (Client& client : clients_) {
    if (client.id == id && id != 0) return &client;
  }
  return nullptr;
}

void Supervisor::Finish(int status) {
  if (exit_status_) return;
  exit_status_ = status;
  status_ = ContainerStatus::kStopped;
}

void Supervisor::OnFrame(const Frame& frame) {
  Client* const client = Find(frame.request);
  const int64_t value = frame.value;
  switch (frame.kind) {
    case FrameKind::kReady:
      ready_ = true;
      (void)SendFrame(setup_.report.get(), FrameKind::kReady, 0).ok();
      return;
    case FrameKind::kStarted:
      status_ = ContainerStatus::kRunning;
      if (Client* const starter = Find(starter_)) Reply(*starter, 0);
      starter_ = 0;
      return;
    case FrameKind::kExited:
      Finish(static_cast<int>(value & 0xff));
      return;
    case FrameKind::kFailed:
      if (Client* const starter = Find(starter_)) Reply(*starter, EINVAL, Printable(frame.text));
      starter_ = 0;
      Fail(Printable(frame.text));
      Finish(StatusOfFailure(value >= 125 && value <= 127 ? static_cast<int>(value) : kOwnFailure));
      return;
    case FrameKind::kExecExited:
    case FrameKind::kExecFailed:
    case FrameKind::kExecStarted:
      if (client == nullptr || !client->is_exec) return;
      client->exec_ended = frame.kind != FrameKind::kExecStarted;
      (void)SendFrame(client->socket.get(), frame.kind, value, Printable(frame.text)).ok();
      return;
    case FrameKind::kReply:
      if (client == nullptr) return;
      client->signals = false;
      return Reply(*client, value, Printable(frame.text));
    default:
      LOG_WARNING("the sentry sent a frame of unknown kind %u", static_cast<unsigned>(frame.kind));
  }
}

void Supervisor::OnFailure(const std::string& line) {
  LOG_ERROR("%s", line.c_str());
  if (Client* const starter = Find(starter_)) Reply(*starter, EINVAL, line);
  Fail(line);
  const siginfo_t& end = sentry().end;
  const bool killed = sentry().ended && end.si_code == CLD_KILLED && end.si_status == SIGKILL;
  Finish(StatusOfFailure(killed ? kKilled : kOwnFailure));
}

void Supervisor::OnReport() {
  const base::Result<Frame> frame = ReceiveFrame(setup_.report.get());
  const bool commit = frame.ok() && frame.value().kind == FrameKind::kCommit;
  setup_.report.Reset();
  // `create` has failed, or was killed: there is no container.
  if (!commit) Finish(kKilled);
}

void Supervisor::Accept() {
  base::Fd socket(accept4(setup_.listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!socket) return;
  Client client;
  client.socket = std::move(socket);
  client.id = next_id_++;
  if (next_id_ == 0) next_id_ = 1;
  clients_.push_back(std::move(client));
}

bool Supervisor::OnClient(Client& client) {
  base::Result<Frame> frame = ReceiveFrame(client.socket.get(), /*take_fds=*/true);
  if (!frame.ok()) {
    if (frame.error() == EAGAIN) return true;
    // Whoever stood for an exec's process was killed: so is that.
    if (client.is_exec && !client.exec_ended) {
      (void)SendFrame(control(), FrameKind::kExecSignal, SIGKILL, {}, client.id).ok();
    }
    return false;
  }
  OnRequest(client, frame.value());
  return true;
}

void Supervisor::Forward(const Client& client, const Frame& frame, std::span<const int> fds) {
  const auto sent = SendFrame(control(), frame.kind, frame.value, frame.text, client.id, fds);
  if (!sent.ok()) Reply(client, sent.error().value(), "the sandbox does not answer");
}

void Supervisor::OnRequest(Client& client, Frame& frame) {
  switch (frame.kind) {
    case FrameKind::kQuery:
      return Reply(client, static_cast<int64_t>(status_));
    case FrameKind::kWait:
      client.waits = true;
      return;
    case FrameKind::kStartGuest:
      if (status_ == ContainerStatus::kPaused) {
        return Reply(client, EBUSY, "cannot start a container in the paused state");
      }
      if (status_ != ContainerStatus::kCreated || starter_ != 0 || !ready_) {
        return Reply(client, EBUSY, "cannot start an already running container");
      }
      starter_ = client.id;
      return Forward(client, frame);
    case FrameKind::kSignalInit:
    case FrameKind::kSignalAll:
      return OnKill(client, frame);
    case FrameKind::kPause:
    case FrameKind::kResume:
      return OnPause(client, frame.kind == FrameKind::kPause);
    case FrameKind::kExec: {
      if (frame.fds.size() != kFrameFdsMax) return Reply(client, EINVAL, "no descriptors");
      if (status_ == ContainerStatus::kPaused && frame.value == 0) {
        return Reply(client, EBUSY,
                     "cannot exec in a paused container (use --ignore-paused to override)");
      }
      if (status_ == ContainerStatus::kCreated) {
        return Reply(client, EBUSY, "cannot exec in a container that has not been started");
      }
      client.is_exec = true;
      std::vector<int> fds;
      for (const base::Fd& fd : frame.fds) fds.push_back(fd.get());
      return Forward(client, frame, fds);
    }
    case FrameKind::kExecSignal:
    case FrameKind::kWindowSize:
      if (client.is_exec) return Forward(client, frame);
      if (frame.kind == FrameKind::kWindowSize) {
        // Of `run`, whose terminal is the first process's.
        (void)SendFrame(control(), FrameKind::kWindowSize, frame.value).ok();
      }
      return;
    default:
      return Reply(client, ENOSYS, "unknown request");
  }
}

void Supervisor::OnKill(Client& client, const Frame& frame) {
  if (status_ == ContainerStatus::kCreated) {
    // As of a program that has no handlers yet.
    Reply(client, 0);
    if (frame.value != 0) Finish(128 + static_cast<int>(frame.value & 0x7f));
    return;
  }
  client.signals = true;
  Forward(client, frame);
}

void Supervisor::OnPause(Client& client, bool pause) {
  const ContainerStatus wanted = pause ? ContainerStatus::kRunning : ContainerStatus::kPaused;
  if (status_ != wanted) {
    return Reply(client, EINVAL,
                 pause ? absl::StrCat("container not running or created: ",
                                      status_ == ContainerStatus::kPaused ? "paused" : "created")
                       : "container not paused");
  }
  status_ = pause ? ContainerStatus::kPaused : ContainerStatus::kRunning;
  Frame frame;
  frame.kind = pause ? FrameKind::kPause : FrameKind::kResume;
  Forward(client, frame);
}

void Supervisor::AwaitCreate() {
  pollfd end{setup_.report.get(), POLLIN, 0};
  if (setup_.report) poll(&end, 1, kCreateWaitMs);
}

int Supervisor::Supervise() {
  bool lean = setup_.sandbox.config.debug;
  std::vector<pollfd> fds;
  while (!exit_status_) {
    fds.assign({{signals_.get(), POLLIN, 0},
                {setup_.report.get(), POLLIN, 0},
                {clients_.size() < kClientsMax ? setup_.listener.get() : -1, POLLIN, 0}});
    const size_t count = clients_.size();
    for (const Client& client : clients_) fds.push_back({client.socket.get(), POLLIN, 0});
    const int ready = PollOnce(fds, lean ? -1 : kLeanAfterMs);
    if (ready == 0) {
      base::DropTextPages();
      lean = true;
    }
    if (ready <= 0 || exit_status_) continue;
    if (fds[0].revents != 0) OnSignals();
    if (fds[1].revents != 0) OnReport();
    for (size_t i = 0; i < count; ++i) {
      if (fds[3 + i].revents != 0 && !OnClient(clients_[i])) clients_[i].socket.Reset();
    }
    std::erase_if(clients_, [](const Client& client) { return !client.socket; });
    if (fds[2].revents != 0) Accept();
  }
  const absl::Status noted =
      directory_.WriteFile(oci::ContainerDir::kExitFile, absl::StrCat(*exit_status_));
  if (!noted.ok()) LOG_WARNING("%s", std::string(noted.message()).c_str());
  for (const Client& client : clients_) {
    // The end may be quicker than the confirmation of what has caused it.
    if (client.signals) Reply(client, 0);
    if (client.waits) {
      (void)SendFrame(client.socket.get(), FrameKind::kExited, *exit_status_).ok();
    }
  }
  return *exit_status_;
}

}  // namespace

void RunSupervisor(SupervisorSetup setup, const oci::ContainerDir& directory,
                   const Timing& timing) {
  int status = kOwnFailure;
  {
    Supervisor supervisor(std::move(setup), directory, timing);
    const absl::Status prepared = supervisor.Prepare();
    if (prepared.ok()) {
      status = supervisor.Supervise();
    } else {
      supervisor.Fail(base::Std(prepared.message()));
    }
    supervisor.AwaitCreate();
  }
  _exit(status);
}

}  // namespace runsc
