#include "runsc-cli/main/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "platform/base/check.h"

namespace runsc {
namespace {

std::atomic<Terminal*> g_terminal{nullptr};

// A crash of runsc itself: tcsetattr is async-signal-safe.
void RestoreAndDie(int signal) {
  Terminal* const terminal = g_terminal.load();
  if (terminal != nullptr) terminal->Restore();
  struct sigaction action{};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
  raise(signal);
}

termios Raw(const termios& original) {
  termios raw = original;
  cfmakeraw(&raw);
  return raw;
}

// All signals but those of a crash are blocked, SIGTTOU among them.
[[noreturn]] void Watch(int terminal, int pipe, const termios& original) {
  // Out of the way of whatever is sent to runsc's job.
  setpgid(0, 0);
  prctl(PR_SET_NAME, "runsc-terminal");
  // Nothing else must be held open: the ends of runsc's sockets tell the others that it has gone.
  constexpr int kTerminal = 0;
  constexpr int kPipe = 1;
  const int spare = fcntl(pipe, F_DUPFD, kPipe + 1);
  if (spare < 0 || dup2(terminal, kTerminal) < 0 || dup2(spare, kPipe) < 0 ||
      close_range(kPipe + 1, ~0U, 0) != 0) {
    _exit(1);
  }
  char byte = 0;
  ssize_t got = -1;
  while ((got = read(kPipe, &byte, 1)) < 0 && errno == EINTR) {
  }
  termios now{};
  const termios raw = Raw(original);
  // A shell that was faster, or has another program there by now, is not disturbed.
  if (got == 0 && tcgetattr(kTerminal, &now) == 0 && now.c_lflag == raw.c_lflag &&
      now.c_iflag == raw.c_iflag && now.c_oflag == raw.c_oflag) {
    tcsetattr(kTerminal, TCSANOW, &original);
  }
  _exit(0);
}

}  // namespace

Terminal::Terminal(int fd) : fd_(fd) {
  RAVELIN_CHECK(g_terminal.exchange(this) == nullptr);
  tcgetattr(fd_, &original_);
  struct sigaction action{};
  action.sa_handler = &RestoreAndDie;
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE}) {
    sigaction(signal, &action, nullptr);
  }
}

Terminal::~Terminal() {
  Restore();
  g_terminal.store(nullptr);
  if (watcher_ <= 0) return;
  const char well = 0;
  [[maybe_unused]] const ssize_t written = write(watcher_pipe_.get(), &well, 1);
  watcher_pipe_.Reset();
  waitpid(watcher_, nullptr, 0);
}

void Terminal::StartWatcher() {
  int ends[2];
  // Without it there is only what there was before: a raw terminal after SIGKILL.
  if (pipe2(ends, O_CLOEXEC) != 0) return;
  const base::Fd reader(ends[0]);
  watcher_pipe_ = base::Fd(ends[1]);
  watcher_ = fork();
  if (watcher_ == 0) Watch(fd_, reader.get(), original_);
  if (watcher_ < 0) watcher_pipe_.Reset();
}

bool Terminal::Acquire() {
  if (tcgetpgrp(fd_) != getpgrp()) return false;
  if (watcher_ == -1) StartWatcher();
  const termios raw = Raw(original_);
  raw_ = tcsetattr(fd_, TCSANOW, &raw) == 0;
  return raw_;
}

void Terminal::Restore() {
  if (!raw_) return;
  raw_ = false;
  // SIGTTOU is blocked in runsc, so this also works from the background. Output that waits is kept.
  tcsetattr(fd_, TCSANOW, &original_);
}

}  // namespace runsc
