// `exec`: one more process in a running container. The sandbox gets its description and the three
// descriptors; what stays outside is a process that stands for it: signals that it is sent go in,
// and it ends with the status of the one inside. With --detach that is a fork, and `exec` itself
// leaves once the program runs.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "platform/base/strings.h"
#include "platform/base/text_pages.h"
#include "runsc-cli/main/compose.h"
#include "runsc-cli/main/container.h"
#include "runsc-cli/main/prepare.h"
#include "runsc-cli/main/process_title.h"
#include "runsc-cli/main/signals.h"
#include "runsc-cli/main/supervisor.h"
#include "runsc-cli/main/terminal.h"

namespace runsc {
namespace {

// runc's status for an exec that did not come about.
constexpr int kExecFailure = 255;
constexpr int kLeanAfterMs = 1000;
constexpr int kKilled = 128 + SIGKILL;

absl::Status ParseUint32(absl::string_view text, const char* what, uint32_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error == std::errc() && end == text.data() + text.size()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " takes numbers, not \"", text, "\""));
}

// The process as flags describe it, on top of the container's first one.
absl::Status ApplyFlags(const cmd::OciOptions& options, oci::Process& process) {
  process.args = options.rest;
  process.terminal = options.tty;
  process.console_rows = process.console_columns = 0;
  if (!options.cwd.empty()) process.cwd = options.cwd;
  for (const std::string& entry : options.environment) process.env.push_back(entry);
  if (options.no_new_privileges) process.no_new_privileges = true;
  if (!options.user.empty()) {
    const std::vector<std::string> parts = absl::StrSplit(options.user, absl::MaxSplits(':', 1));
    process.user.gid = 0;
    process.user.additional_gids.clear();
    if (absl::Status s = ParseUint32(parts[0], "--user", process.user.uid); !s.ok()) return s;
    if (parts.size() == 2) {
      if (absl::Status s = ParseUint32(parts[1], "--user", process.user.gid); !s.ok()) return s;
    }
  }
  for (const std::string& group : options.additional_gids) {
    uint32_t number = 0;
    if (absl::Status s = ParseUint32(group, "--additional-gids", number); !s.ok()) return s;
    process.user.additional_gids.push_back(number);
  }
  for (const std::string& name : options.capabilities) {
    const int number = oci::CapabilityNumber(name);
    if (number < 0) return absl::InvalidArgumentError(absl::StrCat("unknown capability ", name));
    if (!process.capabilities) process.capabilities.emplace();
    oci::Capabilities& sets = *process.capabilities;
    const uint64_t bit = uint64_t{1} << number;
    sets.bounding |= bit;
    sets.effective |= bit;
    sets.permitted |= bit;
  }
  if (process.args.empty()) return absl::InvalidArgumentError("exec needs a program to run");
  return absl::OkStatus();
}

absl::StatusOr<oci::Process> LoadProcess(const cmd::OciOptions& options, const oci::Spec& spec) {
  if (options.process_file.empty()) {
    oci::Process process = *spec.process;
    if (absl::Status status = ApplyFlags(options, process); !status.ok()) return status;
    return process;
  }
  const auto text = oci::ReadTextFile(options.process_file);
  if (!text.ok()) return text.status();
  const auto json = oci::Json::Parse(*text);
  if (!json.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.process_file, ": ", json.status().message()));
  }
  return oci::ParseProcess(*json, "process");
}

// What stands for the process outside.
class ExecProxy {
 public:
  ExecProxy(ControlClient client, const ProcessConfig& config, bool ignore_paused)
      : client_(std::move(client)), config_(config), ignore_paused_(ignore_paused) {}

  // Signals are ours from here on.
  void BlockSignals() { signals_ = TakeSignals(); }

  // The id of the process inside.
  absl::StatusOr<int32_t> Start() {
    const auto config = WriteProcessConfig(config_);
    if (!config.ok()) return config.status();
    const int fds[] = {config->get(), STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};
    const auto answer = client_.Call(FrameKind::kExec, ignore_paused_ ? 1 : 0, fds);
    if (!answer.ok()) return answer.status();
    if (answer->kind == FrameKind::kExecStarted) return static_cast<int32_t>(answer->value);
    if (answer->kind == FrameKind::kExecFailed) {
      return absl::FailedPreconditionError(
          absl::StrCat("unable to start container process: ", answer->text));
    }
    return absl::FailedPreconditionError(answer->text);
  }

  // Nothing of the caller's is kept open; a terminal is, for its size.
  void ReleaseStdio() {
    const base::Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
    if (!config_.terminal) dup2(null.get(), STDIN_FILENO);
    dup2(null.get(), STDOUT_FILENO);
    dup2(null.get(), STDERR_FILENO);
  }

  int Wait(Terminal* terminal) {
    bool lean = false;
    SendWindowSize();
    while (true) {
      pollfd fds[] = {{client_.fd(), POLLIN, 0}, {signals_.get(), POLLIN, 0}};
      const int ready = poll(fds, 2, lean ? -1 : kLeanAfterMs);
      if (ready == 0) {
        base::DropTextPages();
        lean = true;
      }
      if (ready <= 0) continue;
      if (fds[0].revents != 0) {
        const auto frame = ReceiveFrame(client_.fd());
        // The container has ended, and everything in it.
        if (!frame.ok()) return kKilled;
        if (frame.value().kind == FrameKind::kExecExited) {
          return static_cast<int>(frame.value().value & 0xff);
        }
      }
      if (fds[1].revents != 0) OnSignals(terminal);
    }
  }

 private:
  void SendWindowSize() {
    winsize size{};
    if (!config_.terminal || ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0) return;
    (void)SendFrame(client_.fd(), FrameKind::kWindowSize,
                    PackWindowSize(size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel))
        .ok();
  }

  void OnSignals(Terminal* terminal) {
    signalfd_siginfo info{};
    while (read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
      const int signal = static_cast<int>(info.ssi_signo);
      if (signal == SIGWINCH) {
        SendWindowSize();
      } else if (signal == SIGCONT && terminal != nullptr) {
        terminal->Acquire();
      } else if (signal != SIGCHLD && signal != SIGPIPE && signal != SIGTTIN && signal != SIGTTOU &&
                 signal != SIGURG) {
        // A container that has ended is noticed by its socket.
        (void)SendFrame(client_.fd(), FrameKind::kExecSignal, signal).ok();
      }
    }
  }

  ControlClient client_;
  const ProcessConfig& config_;
  const bool ignore_paused_;
  base::Fd signals_;
};

// In the fork: reports by one frame over `report`, then stays.
[[noreturn]] void RunDetached(ExecProxy& proxy, const cmd::OciOptions& options,
                              const ProcessConfig& config, const oci::Cgroups& cgroups,
                              base::Fd report) {
  setsid();
  // Outside of them it would still work; inside it is found by `ps`.
  (void)oci::EnterCgroups(cgroups).ok();
  prctl(PR_SET_NAME, "runsc-exec", 0, 0, 0);
  ShowCommandLine(config.arguments);
  proxy.BlockSignals();
  absl::Status status;
  if (!options.console_socket.empty()) {
    status = OpenHostTerminal(options.console_socket, config.terminal_size);
  }
  int32_t inside = 0;
  if (status.ok()) {
    const auto started = proxy.Start();
    status = started.status();
    inside = started.value_or(0);
  }
  if (!status.ok()) {
    (void)SendFrame(report.get(), FrameKind::kExecFailed, 0, base::Std(status.message())).ok();
    _exit(kExecFailure);
  }
  (void)SendFrame(report.get(), FrameKind::kExecStarted, inside).ok();
  report.Reset();
  proxy.ReleaseStdio();
  _exit(proxy.Wait(nullptr));
}

absl::Status Detach(ExecProxy& proxy, const cmd::OciOptions& options, const ProcessConfig& config,
                    const oci::Cgroups& cgroups) {
  auto line = CreateControlSocket();
  if (!line.ok()) return line.status();
  const pid_t pid = fork();
  if (pid < 0) return absl::InternalError(absl::StrCat("fork: ", strerror(errno)));
  if (pid == 0) {
    line->runsc.Reset();
    RunDetached(proxy, options, config, cgroups, std::move(line->sentry));
  }
  line->sentry.Reset();
  const auto frame = ReceiveFrame(line->runsc.get());
  if (!frame.ok()) return absl::InternalError("the process that stands for the exec has ended");
  if (frame.value().kind != FrameKind::kExecStarted) {
    return absl::FailedPreconditionError(frame.value().text);
  }
  const auto inside = static_cast<pid_t>(frame.value().value);
  if (absl::Status s = WritePidFile(options.internal_pid_file, inside); !s.ok()) return s;
  return WritePidFile(options.pid_file, pid);
}

absl::StatusOr<int> Exec(const cmd::OciOptions& options, const oci::Logrus& log) {
  const auto container = Container::Open(StateRoot(options), options.id);
  if (!container.ok()) return container.status();
  auto client = ControlClient::Connect(container->directory());
  if (!client.ok()) {
    return absl::FailedPreconditionError("cannot exec in a container that has stopped");
  }
  const auto spec = container->Spec();
  if (!spec.ok()) return spec.status();
  const auto process = LoadProcess(options, *spec);
  if (!process.ok()) return process.status();
  std::vector<std::string> warnings;
  auto config = ComposeProcess(*process, spec->seccomp ? &*spec->seccomp : nullptr,
                               container->state().rootfs, warnings);
  if (!config.ok()) return config.status();
  for (const std::string& warning : warnings) log.Warning(warning);
  if (options.tty) config->terminal = true;
  AddStdio(*config);
  if (config->terminal && options.detach && options.console_socket.empty()) {
    return absl::InvalidArgumentError(
        "cannot allocate tty if runsc will detach without setting console socket");
  }
  if (!options.console_socket.empty()) {
    config->terminal = true;
    config->stdio_terminals = config->stdio_open = 7;
  } else if (config->terminal && (config->stdio_terminals & 1) == 0) {
    return absl::InvalidArgumentError("the input device is not a terminal");
  }
  if (!config->terminal) config->stdio_terminals = 0;

  ExecProxy proxy(*std::move(client), *config, options.ignore_paused);
  if (options.detach) {
    if (absl::Status status = Detach(proxy, options, *config, container->Cgroups()); !status.ok())
      return status;
    return 0;
  }
  proxy.BlockSignals();
  std::optional<Terminal> terminal;
  if (config->terminal && options.console_socket.empty()) {
    terminal.emplace(STDIN_FILENO);
    terminal->Acquire();
  } else if (config->terminal) {
    setsid();
    const absl::Status opened = OpenHostTerminal(options.console_socket, config->terminal_size);
    if (!opened.ok()) return opened;
  }
  const auto inside = proxy.Start();
  if (!inside.ok()) {
    if (terminal) terminal->Restore();
    return inside.status();
  }
  if (absl::Status s = WritePidFile(options.internal_pid_file, *inside); !s.ok()) return s;
  if (absl::Status s = WritePidFile(options.pid_file, getpid()); !s.ok()) return s;
  return proxy.Wait(terminal ? &*terminal : nullptr);
}

}  // namespace

int ExecInContainer(const cmd::OciOptions& options, const oci::Logrus& log) {
  const auto status = Exec(options, log);
  if (status.ok()) return *status;
  log.Error(absl::StrCat("exec failed: ", status.status().message()));
  return kExecFailure;
}

}  // namespace runsc
