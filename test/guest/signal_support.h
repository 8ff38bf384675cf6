#pragma once

// What the cases about signals share.

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <initializer_list>

namespace signal_test {

struct KernelAction {
  uint64_t handler, flags, restorer, mask;
};

// Puts back an action when a case ends.
class ScopedAction {
 public:
  ScopedAction(int signal, void (*handler)(int), int flags = 0) : signal_(signal) {
    struct sigaction action{};
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(signal, &action, &old_);
  }
  ScopedAction(int signal, void (*handler)(int, siginfo_t*, void*), int flags) : signal_(signal) {
    struct sigaction action{};
    action.sa_sigaction = handler;
    action.sa_flags = flags | SA_SIGINFO;
    sigaction(signal, &action, &old_);
  }
  ~ScopedAction() { sigaction(signal_, &old_, nullptr); }

 private:
  int signal_;
  struct sigaction old_{};
};

class ScopedBlock {
 public:
  explicit ScopedBlock(std::initializer_list<int> signals) {
    sigemptyset(&set_);
    for (const int signal : signals) sigaddset(&set_, signal);
    sigprocmask(SIG_BLOCK, &set_, &old_);
  }
  ~ScopedBlock() { sigprocmask(SIG_SETMASK, &old_, nullptr); }
  const sigset_t* set() const { return &set_; }

 private:
  sigset_t set_, old_;
};

inline volatile sig_atomic_t g_count = 0;
inline volatile sig_atomic_t g_order[64];
inline void Count(int) { g_count = g_count + 1; }
inline void Record(int signal) {
  g_order[g_count] = signal;
  g_count = g_count + 1;
}
inline siginfo_t g_info;
inline void KeepInfo(int, siginfo_t* info, void*) { g_info = *info; }

inline int ChildStatus(void (*body)()) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    for (int i = 1; i < 32; ++i) signal(i, SIG_DFL);
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

}  // namespace signal_test
