#pragma once

// What the tests of blocking calls have in common.

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <utility>

namespace test {

// Not mapped, and the compiler does not know.
template <typename T>
T* BadPointer() {
  const volatile uintptr_t address = 16;
  return reinterpret_cast<T*>(uintptr_t{address});
}

inline int64_t NowMs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000;
}

inline void SleepMs(int64_t ms) {
  timespec time{ms / 1000, ms % 1000 * 1'000'000};
  while (nanosleep(&time, &time) != 0) {
  }
}

// A child process running `body`, whose value is its exit status. Bodies must not use test macros.
class Child {
 public:
  explicit Child(const std::function<int()>& body) : pid_(fork()) {
    if (pid_ == 0) _exit(body());
  }
  ~Child() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  pid_t pid() const { return pid_; }
  // Exit status, or 128 + the signal that ended it.
  int Wait() {
    int status = 0;
    if (waitpid(std::exchange(pid_, -1), &status, 0) < 0) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  pid_t pid_;
};

// A file descriptor that closes itself.
class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { Reset(); }
  operator int() const { return fd_; }  // NOLINT: for brevity of tests.
  void Reset() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

struct PipeFds {
  explicit PipeFds(int flags = 0) {
    int ends[2] = {-1, -1};
    if (pipe2(ends, flags) != 0) _exit(99);
    new (&reader) Fd(ends[0]);
    new (&writer) Fd(ends[1]);
  }
  Fd reader;
  Fd writer;
};

// A handler that counts, for the test's duration.
inline volatile sig_atomic_t g_signals = 0;
class CountSignals {
 public:
  explicit CountSignals(int signal, int flags = 0) : signal_(signal) {
    g_signals = 0;
    struct sigaction action{};
    action.sa_handler = [](int) { g_signals = g_signals + 1; };
    action.sa_flags = flags;
    sigaction(signal, &action, &old_);
  }
  ~CountSignals() { sigaction(signal_, &old_, nullptr); }
  CountSignals(const CountSignals&) = delete;
  CountSignals& operator=(const CountSignals&) = delete;

 private:
  int signal_;
  struct sigaction old_{};
};

// Sends `signal` to the calling process after `ms`, once or until it is destroyed.
class SignalSoon {
 public:
  SignalSoon(int signal, int64_t ms, bool repeat = false)
      : child_([parent = getpid(), signal, ms, repeat] {
          do {
            SleepMs(ms);
            kill(parent, signal);
          } while (repeat);
          return 0;
        }) {}

 private:
  Child child_;
};

}  // namespace test
