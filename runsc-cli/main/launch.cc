#include "runsc-cli/main/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "platform/base/log.h"
#include "platform/base/text_pages.h"
#include "runsc-cli/main/control_socket.h"
#include "runsc-cli/main/prepare.h"
#include "runsc-cli/main/sandbox.h"
#include "runsc-cli/main/signals.h"
#include "runsc-cli/main/terminal.h"
#include "runsc-cli/main/timing.h"

namespace runsc {
namespace {

// From then on there is nothing to do for long, and nothing that needs the code of the start.
constexpr int kLeanAfterMs = 1000;

void Say(const std::string& line) {
  LOG_INFO("says: %s", line.c_str());
  const std::string text = absl::StrCat("runsc: ", line, "\n");
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

class DoSandbox : public Sandbox {
 public:
  DoSandbox(const cmd::DoOptions& options, const Timing& timing)
      : Sandbox(timing), options_(options) {}
  // The terminal first: what ends the processes may take a while.
  ~DoSandbox() override { terminal_.reset(); }

  absl::Status Start();
  // Until the guest is done. The exit status.
  int Supervise();

 private:
  void OnFrame(const Frame& frame) override;
  void OnFailure(const std::string& line) override {
    if (terminal_) terminal_->Restore();
    Say(line);
    Finish(kOwnFailure);
  }
  bool done() const override { return status_.has_value(); }
  void BlockSignals(BootConfig& config);
  void OnSignal();
  void AcquireTerminal();
  void SendWindowSize();
  void Finish(int status) {
    if (!status_) status_ = status;
  }

  const cmd::DoOptions& options_;
  base::Fd signals_;
  std::optional<Terminal> terminal_;
  bool terminal_wanted_ = false;
  uint64_t ignored_signals_ = 0;
  std::optional<int> status_;
};

void DoSandbox::BlockSignals(BootConfig& config) {
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
  signals_ = TakeSignals();
}

absl::Status DoSandbox::Start() {
  auto prepared = Prepare(options_);
  if (!prepared.ok()) return prepared.status();
  SandboxSpec& spec = *prepared;
  if (absl::Status status = OpenLogs(spec); !status.ok()) return status;
  spec.config.timing = timing().on();
  BlockSignals(spec.config);
  terminal_wanted_ = (spec.config.stdio_terminals & 1) != 0;
  spec.config.terminal = terminal_wanted_;
  if (absl::Status status = StartProcesses(spec); !status.ok()) return status;
  if (terminal_wanted_) {
    terminal_.emplace(STDIN_FILENO);
    AcquireTerminal();
  }
  return absl::OkStatus();
}

void DoSandbox::AcquireTerminal() {
  if (!terminal_) return;
  const bool ours = terminal_->Acquire();
  (void)SendFrame(control(), FrameKind::kForeground, ours ? 1 : 0).ok();
  SendWindowSize();
}

void DoSandbox::SendWindowSize() {
  winsize size{};
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (ioctl(fd, TIOCGWINSZ, &size) != 0) continue;
    // A sentry that does not read its socket misses a window size, which the next one mends.
    (void)SendFrame(control(), FrameKind::kWindowSize,
                    PackWindowSize(size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel))
        .ok();
    return;
  }
}

void DoSandbox::OnSignal() {
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
        (void)SendFrame(control(), FrameKind::kSignal, signal).ok();
        if (terminal_) terminal_->Restore();
        kill(getpid(), SIGSTOP);
        break;
      case SIGCONT:
        AcquireTerminal();
        [[fallthrough]];
      default:
        LOG_DEBUG("signal %d goes to the guest", signal);
        if (!SendFrame(control(), FrameKind::kSignal, signal).ok()) {
          LOG_WARNING("signal %d is lost: the sentry does not take it", signal);
        }
    }
  }
}

void DoSandbox::OnFrame(const Frame& frame) {
  const int64_t value = frame.value;
  switch (frame.kind) {
    case FrameKind::kStarted:
      return;
    case FrameKind::kExited:
      timing().Note("has the exit status");
      Finish(static_cast<int>(value & 0xff));
      return;
    case FrameKind::kFailed: {
      if (terminal_) terminal_->Restore();
      Say(Printable(frame.text));
      Finish(value >= 125 && value <= 127 ? static_cast<int>(value) : kOwnFailure);
      return;
    }
    default:
      LOG_WARNING("the sentry sent a frame of unknown kind %u", static_cast<unsigned>(frame.kind));
  }
}

int DoSandbox::Supervise() {
  bool lean = options_.common.debug;
  while (!status_) {
    pollfd own[] = {{signals_.get(), POLLIN, 0}};
    const int ready = PollOnce(own, lean ? -1 : kLeanAfterMs);
    if (ready == 0) {
      base::DropTextPages();
      lean = true;
    }
    if (ready > 0 && !status_ && own[0].revents != 0) OnSignal();
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
    DoSandbox sandbox(options, timing);
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
