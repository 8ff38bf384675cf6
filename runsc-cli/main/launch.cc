#include "runsc-cli/main/launch.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gofer/protocol/channel.h"
#include "platform/base/log.h"
#include "platform/base/text_pages.h"
#include "platform/seccomp/violation.h"
#include "runsc-cli/main/cage.h"
#include "runsc-cli/main/control_socket.h"
#include "runsc-cli/main/debug_log.h"
#include "runsc-cli/main/prepare.h"
#include "runsc-cli/main/terminal.h"
#include "runsc-cli/main/timing.h"

namespace runsc {
namespace {

// From then on there is nothing to do for long, and nothing that needs the code of the start.
constexpr int kLeanAfterMs = 1000;
// How long a gofer's end waits for its sentry's, which explains it.
constexpr int kGoferFirstMs = 100;

void Say(const std::string& line) {
  LOG_INFO("says: %s", line.c_str());
  const std::string text = absl::StrCat("runsc: ", line, "\n");
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

// The three processes of a sandbox, seen from runsc.
class Sandbox {
 public:
  Sandbox(const cmd::DoOptions& options, const Timing& timing)
      : options_(options), timing_(timing) {}
  ~Sandbox();
  Sandbox(const Sandbox&) = delete;
  Sandbox& operator=(const Sandbox&) = delete;

  absl::Status Start();
  // Until the guest is done. The exit status.
  int Supervise();

 private:
  struct Process {
    CageSpec spec;
    Caged child;
    bool ended = false;
    siginfo_t end{};
  };

  absl::Status StartGofer(const base::Fd& config, const gofer::ChannelEnds& channel,
                          const std::vector<base::Fd>& attach_fds);
  absl::Status StartSentry(const base::Fd& config, const gofer::ChannelEnds& channel,
                           const base::Fd& control, const std::vector<base::Fd>& link_fds);
  void BlockSignals(BootConfig& config);
  void OnSignal();
  void OnControl();
  void OnProcess(Process& process, const std::string& log_path);
  void AcquireTerminal();
  void SendWindowSize();
  // How `process` ended, for the user.
  static std::string Obituary(const Process& process, const std::string& log_path);
  void Finish(int status) {
    if (!status_) status_ = status;
  }

  const cmd::DoOptions& options_;
  const Timing& timing_;
  DebugLogs logs_;
  base::Fd control_;
  base::Fd null_;
  base::Fd signals_;
  Process sentry_;
  Process gofer_;
  std::optional<Terminal> terminal_;
  bool terminal_wanted_ = false;
  uint64_t ignored_signals_ = 0;
  std::optional<int> status_;
};

Sandbox::~Sandbox() {
  terminal_.reset();
  // The sentry is pid 1 of its namespace: all stubs go with it. Without its socket the gofer
  // leaves.
  control_.Reset();
  // The status is known or there will be none, so there is nothing to wait for but their ends: both
  // at once.
  for (Process* process : {&sentry_, &gofer_}) {
    if (process->child.pid < 0 || process->ended) continue;
    syscall(SYS_pidfd_send_signal, process->child.pid_fd.get(), SIGKILL, nullptr, 0);
  }
  for (Process* process : {&sentry_, &gofer_}) {
    if (process->child.pid < 0 || process->ended) continue;
    waitpid(process->child.pid, nullptr, 0);
    timing_.Note(process == &sentry_ ? "has reaped the sentry" : "has reaped the gofer");
  }
}

void Sandbox::BlockSignals(BootConfig& config) {
  // What the caller ignores (nohup, a background job of a script) the guest ignores, too.
  for (int signal = 1; signal < 64; ++signal) {
    struct sigaction action{};
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) {
      config.ignored_signals |= uint64_t{1} << (signal - 1);
    }
  }
  ignored_signals_ = config.ignored_signals;
  // Else children would vanish without a status.
  ::signal(SIGCHLD, SIG_DFL);
  // Everything that a signal can be about is either forwarded or ours to act on, in Supervise's
  // loop. Synchronous ones stay: they are our own crashes.
  sigset_t set;
  sigfillset(&set);
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS}) {
    sigdelset(&set, signal);
  }
  sigprocmask(SIG_SETMASK, &set, nullptr);
  signals_ = base::Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

absl::Status Sandbox::StartGofer(const base::Fd& config, const gofer::ChannelEnds& channel,
                                 const std::vector<base::Fd>& attach_fds) {
  auto program = OpenHelperProgram("runsc-gofer");
  if (!program.ok()) return program.status();
  CageSpec& spec = gofer_.spec;
  spec.name = "runsc-gofer";
  spec.program_fd = program->get();
  spec.fds = {config.get(),
              logs_.gofer ? logs_.gofer.get() : null_.get(),
              channel.memory.get(),
              channel.server_socket.get(),
              -1,
              timing_.fd()};
  spec.timing_fd = timing_.fd();
  spec.timing_name = "gofer";
  spec.own_fds_directory_at = kOwnFdsFd;
  for (const base::Fd& fd : attach_fds) spec.fds.push_back(fd.get());
  if (MayMakeNamespaces()) {
    // Ids must be the host's, so no user namespace; what remains of root is what serving root's
    // files takes.
    spec.own_user_namespace = false;
    spec.share_namespaces_of = sentry_.child.pid_fd.get();
    spec.kept_capabilities = uint64_t{1} << CAP_DAC_READ_SEARCH;
    for (const cmd::Volume& volume : options_.volumes) {
      if (volume.read_only) continue;
      spec.kept_capabilities |= uint64_t{1} << CAP_DAC_OVERRIDE | uint64_t{1} << CAP_CHOWN |
                                uint64_t{1} << CAP_FOWNER | uint64_t{1} << CAP_FSETID;
    }
  } else {
    spec.inside_uid = spec.outside_uid = geteuid();
    spec.inside_gid = spec.outside_gid = getegid();
  }
  auto child = StartCaged(spec);
  if (!child.ok()) return child.status();
  gofer_.child = std::move(*child);
  timing_.Note("has cloned the gofer");
  return absl::OkStatus();
}

absl::Status Sandbox::StartSentry(const base::Fd& config, const gofer::ChannelEnds& channel,
                                  const base::Fd& control, const std::vector<base::Fd>& link_fds) {
  auto program = OpenHelperProgram("runsc-sentry");
  if (!program.ok()) return program.status();
  CageSpec& spec = sentry_.spec;
  spec.name = "runsc-sentry";
  spec.program_fd = program->get();
  spec.fds = {config.get(),         logs_.sentry ? logs_.sentry.get() : null_.get(),
              channel.memory.get(), channel.client_socket.get(),
              control.get(),        timing_.fd()};
  spec.timing_fd = timing_.fd();
  spec.timing_name = "sentry";
  spec.fds.push_back(-1);  // kNetworkSocketFd
  for (const base::Fd& fd : link_fds) spec.fds.push_back(fd.get());
  if (!MayMakeNamespaces()) {
    spec.outside_uid = geteuid();
    spec.outside_gid = getegid();
  }
  auto child = StartCaged(spec);
  if (!child.ok()) return child.status();
  sentry_.child = std::move(*child);
  timing_.Note("has cloned the sentry");
  return absl::OkStatus();
}

absl::Status Sandbox::Start() {
  auto prepared = Prepare(options_);
  if (!prepared.ok()) return prepared.status();
  const absl::Status limits = RaiseLimits();
  if (!limits.ok()) return limits;
  auto logs = OpenDebugLogs(options_.common.debug_log);
  if (!logs.ok()) return logs.status();
  logs_ = std::move(*logs);
  const auto level = options_.common.debug ? base::LogLevel::kDebug : base::LogLevel::kInfo;
  base::SetLogSink(logs_.runsc.get(), logs_.runsc ? level : base::LogLevel::kWarning, "runsc");
  null_ = base::Fd(open("/dev/null", O_RDWR | O_CLOEXEC));

  BootConfig& config = prepared->config;
  config.timing = timing_.on();
  BlockSignals(config);
  terminal_wanted_ = (config.stdio_terminals & 1) != 0;
  config.terminal = terminal_wanted_;
  const auto config_fd = WriteBootConfig(config);
  if (!config_fd.ok()) return config_fd.status();
  const auto channel = gofer::CreateChannel();
  if (!channel.ok()) return channel.status();
  auto control = CreateControlSocket();
  if (!control.ok()) return control.status();
  control_ = std::move(control->runsc);

  timing_.Note("has prepared");
  const absl::Status sentry =
      StartSentry(*config_fd, *channel, control->sentry, prepared->link_fds);
  if (!sentry.ok()) return sentry;
  const absl::Status gofer = StartGofer(*config_fd, *channel, prepared->attach_fds);
  if (!gofer.ok()) return gofer;
  if (terminal_wanted_) {
    terminal_.emplace(STDIN_FILENO);
    AcquireTerminal();
  }
  return absl::OkStatus();
  // The children's ends close here: each side must see the other's end.
}

void Sandbox::AcquireTerminal() {
  if (!terminal_) return;
  const bool ours = terminal_->Acquire();
  (void)SendFrame(control_.get(), FrameKind::kForeground, ours ? 1 : 0).ok();
  SendWindowSize();
}

void Sandbox::SendWindowSize() {
  winsize size{};
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (ioctl(fd, TIOCGWINSZ, &size) != 0) continue;
    // A sentry that does not read its socket misses a window size, which the next one mends.
    (void)SendFrame(control_.get(), FrameKind::kWindowSize,
                    PackWindowSize(size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel))
        .ok();
    return;
  }
}

void Sandbox::OnSignal() {
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
    const int signal = static_cast<int>(info.ssi_signo);
    if ((ignored_signals_ >> (signal - 1) & 1) != 0 && signal != SIGCHLD) continue;
    switch (signal) {
      case SIGCHLD:  // The pid descriptors tell.
      case SIGURG:
      case SIGPIPE:
        break;
      case SIGWINCH:
        SendWindowSize();
        break;
      case SIGTTIN:
      case SIGTTOU:
        break;
      case SIGTSTP:
        // Typed where the terminal is not ours to make raw (standard input is a pipe): the guest is
        // told, and runsc stops as the job that its shell takes it for.
        (void)SendFrame(control_.get(), FrameKind::kSignal, signal).ok();
        if (terminal_) terminal_->Restore();
        kill(getpid(), SIGSTOP);
        break;
      case SIGCONT:
        AcquireTerminal();
        [[fallthrough]];
      default:
        LOG_DEBUG("signal %d goes to the guest", signal);
        if (!SendFrame(control_.get(), FrameKind::kSignal, signal).ok()) {
          LOG_WARNING("signal %d is lost: the sentry does not take it", signal);
        }
    }
  }
}

void Sandbox::OnControl() {
  const base::Result<Frame> frame = ReceiveFrame(control_.get());
  if (!frame.ok()) {
    // The end of the line; its process descriptor says why.
    control_.Reset();
    return;
  }
  const int64_t value = frame.value().value;
  switch (frame.value().kind) {
    case FrameKind::kStarted:
      return;
    case FrameKind::kExited:
      timing_.Note("has the exit status");
      Finish(static_cast<int>(value & 0xff));
      return;
    case FrameKind::kFailed: {
      // A guest cannot write here, but a broken sentry could: no control characters to the
      // terminal.
      std::string text = frame.value().text;
      for (char& c : text) {
        if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
      }
      if (terminal_) terminal_->Restore();
      Say(text);
      Finish(value >= 125 && value <= 127 ? static_cast<int>(value) : kOwnFailure);
      return;
    }
    default:
      LOG_WARNING("the sentry sent a frame of unknown kind %u",
                  static_cast<unsigned>(frame.value().kind));
  }
}

std::string Sandbox::Obituary(const Process& process, const std::string& log_path) {
  const siginfo_t& end = process.end;
  std::string how;
  if (end.si_code == CLD_EXITED && end.si_status == platform::seccomp::kViolationExitCode) {
    how = "was killed by its seccomp filter";
  } else if (end.si_code == CLD_EXITED) {
    how = absl::StrCat("ended unexpectedly with status ", end.si_status);
  } else if (end.si_status == SIGSYS) {
    how = "was killed by its seccomp filter";
  } else if (end.si_status == SIGABRT) {
    how = "panicked";
  } else {
    how = absl::StrCat("was killed by signal ", end.si_status, " (", strsignal(end.si_status), ")");
  }
  return absl::StrCat(process.spec.name, " ", how, "; ",
                      log_path.empty() ? "the report, if any, is above (--debug-log DIR keeps it)"
                                       : absl::StrCat("the report is in ", log_path));
}

void Sandbox::OnProcess(Process& process, const std::string& log_path) {
  waitid(P_PIDFD, static_cast<id_t>(process.child.pid_fd.get()), &process.end, WEXITED);
  process.ended = true;
  // A frame that the sentry sent before it ended is still in the socket.
  while (control_ && !status_) {
    pollfd ready{control_.get(), POLLIN, 0};
    if (poll(&ready, 1, 0) <= 0) break;
    OnControl();
  }
  LOG_INFO("%s ended: code %d status %d", process.spec.name.c_str(), process.end.si_code,
           process.end.si_status);
  if (status_) return;
  if (terminal_) terminal_->Restore();
  Say(Obituary(process, log_path));
  Finish(kOwnFailure);
}

int Sandbox::Supervise() {
  bool lean = options_.common.debug;
  while (!status_) {
    pollfd fds[] = {
        {signals_.get(), POLLIN, 0},
        {control_.get(), POLLIN, 0},
        {sentry_.child.pid_fd.get(), POLLIN, 0},
        {gofer_.child.pid_fd.get(), POLLIN, 0},
        {sentry_.child.exec_error.get(), POLLIN, 0},
        {gofer_.child.exec_error.get(), POLLIN, 0},
    };
    const int ready = poll(fds, 6, lean ? -1 : kLeanAfterMs);
    if (ready == 0) {
      base::DropTextPages();
      lean = true;
    }
    if (ready <= 0) continue;
    for (Process* process : {&sentry_, &gofer_}) {
      if (fds[process == &sentry_ ? 4 : 5].revents == 0) continue;
      const absl::Status started = TakeStartError(process->spec, process->child);
      if (started.ok()) continue;
      if (terminal_) terminal_->Restore();
      Say(std::string(started.message()));
      Finish(kOwnFailure);
    }
    if (status_) break;
    if (fds[1].revents != 0) OnControl();
    if (fds[0].revents != 0) OnSignal();
    if (fds[2].revents != 0 && !status_) OnProcess(sentry_, logs_.sentry_path);
    if (fds[3].revents != 0 && !status_) {
      // A gofer whose sentry has gone leaves at once and may be noticed first; the news is the
      // sentry.
      pollfd sentry_ended{sentry_.child.pid_fd.get(), POLLIN, 0};
      if (poll(&sentry_ended, 1, kGoferFirstMs) > 0) {
        OnProcess(sentry_, logs_.sentry_path);
      } else {
        OnProcess(gofer_, logs_.gofer_path);
      }
    }
  }
  return *status_;
}

}  // namespace

int RunDo(const cmd::DoOptions& options, uint64_t start_ns) {
  TimingPipe pipe;
  if (options.common.timing) {
    auto made = CreateTimingPipe();
    if (!made.ok()) {
      Say(std::string(made.status().message()));
      return kOwnFailure;
    }
    pipe = std::move(*made);
  }
  const Timing timing(pipe.writer.get(), "runsc");
  int status = kOwnFailure;
  {
    Sandbox sandbox(options, timing);
    const absl::Status started = sandbox.Start();
    if (!started.ok()) {
      Say(std::string(started.message()));
      return kOwnFailure;
    }
    status = sandbox.Supervise();
  }
  if (timing.on()) {
    timing.Note("ends");
    const std::string report = TimingReport(pipe.reader.get(), start_ns);
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, report.data(), report.size());
  }
  return status;
}

}  // namespace runsc
