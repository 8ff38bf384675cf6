#include "runsc-cli/main/terminal.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
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
}

bool Terminal::Acquire() {
  if (tcgetpgrp(fd_) != getpgrp()) return false;
  termios raw = original_;
  cfmakeraw(&raw);
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
