// Signals: queues, masks, handlers, restarts.

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"
#include "test/guest/signal_support.h"

namespace {

using namespace signal_test;

TEST_CASE("a handler runs once for each delivery", "[signal]") {
  const ScopedAction action(SIGUSR1, Count);
  g_count = 0;
  for (int i = 1; i <= 100; ++i) {
    raise(SIGUSR1);
    REQUIRE(g_count == i);
  }
}

TEST_CASE("a blocked standard signal is kept once", "[signal]") {
  const ScopedAction action(SIGUSR1, Count);
  g_count = 0;
  {
    const ScopedBlock block{SIGUSR1};
    for (int i = 0; i < 5; ++i) raise(SIGUSR1);
    sigset_t pending;
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGUSR1) == 1);
    CHECK(g_count == 0);
  }
  CHECK(g_count == 1);
}

TEST_CASE("blocked real-time signals are queued in order with their values", "[signal]") {
  const ScopedBlock block{SIGRTMIN, SIGRTMIN + 1};
  for (int i = 0; i < 3; ++i) sigqueue(getpid(), SIGRTMIN + 1, sigval{.sival_int = i});
  sigqueue(getpid(), SIGRTMIN, sigval{.sival_int = 9});
  siginfo_t info{};
  const timespec now{0, 0};
  REQUIRE(sigtimedwait(block.set(), &info, &now) == SIGRTMIN);
  CHECK(info.si_value.sival_int == 9);
  CHECK(info.si_code == SI_QUEUE);
  CHECK(info.si_pid == getpid());
  for (int i = 0; i < 3; ++i) {
    REQUIRE(sigtimedwait(block.set(), &info, &now) == SIGRTMIN + 1);
    CHECK(info.si_value.sival_int == i);
  }
  CHECK(sigtimedwait(block.set(), &info, &now) == -1);
  CHECK(errno == EAGAIN);
}

TEST_CASE("RLIMIT_SIGPENDING bounds the queue", "[signal]") {
  const int status = ChildStatus([] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    const rlimit few{0, 0};
    setrlimit(RLIMIT_SIGPENDING, &few);
    if (sigqueue(getpid(), SIGRTMIN, sigval{}) == 0) _exit(1);
    if (errno != EAGAIN) _exit(2);
    if (kill(getpid(), SIGRTMIN) != 0) _exit(3);  // kill(2) always gets through.
  });
  CHECK(status == 0);
}

TEST_CASE("pending signals are delivered lowest number first", "[signal]") {
  const ScopedAction one(SIGUSR1, Record), two(SIGUSR2, Record), hup(SIGHUP, Record),
      winch(SIGWINCH, Record);
  g_count = 0;
  {
    const ScopedBlock block{SIGUSR1, SIGUSR2, SIGHUP, SIGWINCH};
    raise(SIGWINCH);
    raise(SIGUSR2);
    raise(SIGUSR1);
    raise(SIGHUP);
  }
  REQUIRE(g_count == 4);
  // Each frame is pushed on top of the one before: the highest number runs first.
  CHECK(g_order[0] == SIGWINCH);
  CHECK(g_order[1] == SIGUSR2);
  CHECK(g_order[2] == SIGUSR1);
  CHECK(g_order[3] == SIGHUP);
}

TEST_CASE("the handled signal and sa_mask are blocked in a handler, SA_NODEFER excepted",
          "[signal]") {
  static sigset_t seen;
  for (const bool nodefer : {false, true}) {
    struct sigaction action{}, old{};
    action.sa_handler = [](int) { sigprocmask(SIG_BLOCK, nullptr, &seen); };
    action.sa_flags = nodefer ? SA_NODEFER : 0;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &action, &old);
    raise(SIGUSR1);
    CHECK(sigismember(&seen, SIGUSR1) == (nodefer ? 0 : 1));
    CHECK(sigismember(&seen, SIGUSR2) == 1);
    sigset_t after;
    sigprocmask(SIG_BLOCK, nullptr, &after);
    CHECK(sigismember(&after, SIGUSR2) == 0);
    sigaction(SIGUSR1, &old, nullptr);
  }
}

TEST_CASE("SA_RESETHAND gives one delivery", "[signal]") {
  const ScopedAction action(SIGUSR1, Count, static_cast<int>(SA_RESETHAND));
  raise(SIGUSR1);
  struct sigaction now{};
  sigaction(SIGUSR1, nullptr, &now);
  CHECK(now.sa_handler == SIG_DFL);
}

TEST_CASE("SIGKILL and SIGSTOP can be neither caught nor blocked", "[signal]") {
  for (const int signal : {SIGKILL, SIGSTOP}) {
    struct sigaction action{};
    action.sa_handler = SIG_IGN;
    CHECK(sigaction(signal, &action, nullptr) == -1);
    CHECK(errno == EINVAL);
  }
  sigset_t all, old, now;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &old);
  sigprocmask(SIG_SETMASK, nullptr, &now);
  sigprocmask(SIG_SETMASK, &old, nullptr);
  CHECK(sigismember(&now, SIGKILL) == 0);
  CHECK(sigismember(&now, SIGSTOP) == 0);
}

TEST_CASE("rt_sigaction wants eight bytes of mask and a real signal", "[signal]") {
  KernelAction action{};
  CHECK(syscall(SYS_rt_sigaction, SIGUSR1, nullptr, &action, 4) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_rt_sigaction, 65, nullptr, &action, 8) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_rt_sigaction, 0, nullptr, &action, 8) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_rt_sigaction, SIGUSR1, reinterpret_cast<void*>(8), nullptr, 8) == -1);
  CHECK(errno == EFAULT);
}

TEST_CASE("setting an action to ignore drops what is pending", "[signal]") {
  const ScopedBlock block{SIGUSR1};
  raise(SIGUSR1);
  signal(SIGUSR1, SIG_IGN);
  sigset_t pending;
  sigpending(&pending);
  CHECK(sigismember(&pending, SIGUSR1) == 0);
  signal(SIGUSR1, SIG_DFL);
}

TEST_CASE("kill tells who sent it", "[signal]") {
  const ScopedAction action(SIGUSR1, KeepInfo, 0);
  kill(getpid(), SIGUSR1);
  CHECK(g_info.si_signo == SIGUSR1);
  CHECK(g_info.si_code == SI_USER);
  CHECK(g_info.si_pid == getpid());
  CHECK(g_info.si_uid == getuid());
  raise(SIGUSR1);
  CHECK(g_info.si_code == SI_TKILL);
}

TEST_CASE("kill and tgkill check their target", "[signal]") {
  CHECK(kill(getpid(), 0) == 0);
  CHECK(kill(getpid(), 65) == -1);
  CHECK(errno == EINVAL);
  CHECK(kill(0x3ffffff, 0) == -1);
  CHECK(errno == ESRCH);
  CHECK(syscall(SYS_tgkill, getpid(), -1, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_tgkill, getpid() + 12345, syscall(SYS_gettid), 0) == -1);
  CHECK(errno == ESRCH);
  CHECK(syscall(SYS_tkill, syscall(SYS_gettid), 0) == 0);
}

TEST_CASE("rt_sigqueueinfo may not pretend to be the kernel to others", "[signal]") {
  const pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  siginfo_t info{};
  info.si_signo = SIGUSR1;
  info.si_code = SI_USER;
  CHECK(syscall(SYS_rt_sigqueueinfo, child, SIGUSR1, &info) == -1);
  CHECK(errno == EPERM);
  info.si_code = SI_QUEUE;
  info.si_value.sival_int = 77;
  CHECK(syscall(SYS_rt_sigqueueinfo, child, 0, &info) == 0);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST_CASE("a signal for the process goes to a thread that does not block it", "[signal][thread]") {
  const ScopedAction action(SIGUSR1, Count);
  g_count = 0;
  const ScopedBlock block{SIGUSR1};
  std::atomic<bool> ready{false};
  std::thread other([&ready] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    ready = true;
    while (g_count == 0) usleep(1000);
  });
  while (!ready) usleep(100);
  kill(getpid(), SIGUSR1);
  other.join();
  CHECK(g_count == 1);
}

TEST_CASE("tgkill reaches the thread it names", "[signal][thread]") {
  static thread_local int hits = 0;
  struct sigaction action{}, old{};
  action.sa_handler = [](int) { ++hits; };
  sigaction(SIGUSR2, &action, &old);
  std::atomic<int> seen{0};
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) {
      seen = hits;
      usleep(500);
    }
  });
  for (int i = 0; i < 10; ++i) {
    const int before = seen;
    pthread_kill(other.native_handle(), SIGUSR2);
    while (seen == before) usleep(100);
  }
  stop = true;
  other.join();
  CHECK(seen >= 10);
  CHECK(hits == 0);
  sigaction(SIGUSR2, &old, nullptr);
}

TEST_CASE("a busy thread is interrupted by a signal", "[signal]") {
  const ScopedAction action(SIGALRM, Count);
  g_count = 0;
  const itimerval soon{{0, 0}, {0, 20000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  while (g_count == 0) {
  }
  CHECK(g_count == 1);
}

TEST_CASE("SA_RESTART restarts a read, otherwise it ends with EINTR", "[signal][restart]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  for (const bool restart : {false, true}) {
    const ScopedAction action(SIGALRM, Count, restart ? SA_RESTART : 0);
    g_count = 0;
    const itimerval soon{{0, 0}, {0, 20000}};
    setitimer(ITIMER_REAL, &soon, nullptr);
    std::thread writer([&] {
      while (g_count == 0) usleep(1000);
      usleep(20000);
      if (write(ends[1], "x", 1) != 1) abort();
    });
    sigset_t set;
    sigemptyset(&set);
    char byte = 0;
    // The alarm may go to either thread; send one to this one.
    const pthread_t self = pthread_self();
    std::thread sender([self] {
      usleep(10000);
      pthread_kill(self, SIGALRM);
    });
    const ssize_t got = read(ends[0], &byte, 1);
    const int error = errno;
    if (restart) {
      CHECK(got == 1);
    } else {
      CHECK(got == -1);
      CHECK(error == EINTR);
    }
    sender.join();
    writer.join();
    if (!restart) CHECK(read(ends[0], &byte, 1) == 1);
  }
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("nanosleep ends early and tells what remains", "[signal][restart]") {
  const ScopedAction action(SIGALRM, Count, SA_RESTART);
  const itimerval soon{{0, 0}, {0, 20000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  const timespec wanted{5, 0};
  timespec rest{};
  CHECK(nanosleep(&wanted, &rest) == -1);
  CHECK(errno == EINTR);
  CHECK(rest.tv_sec == 4);
}

TEST_CASE("a stop and continuation do not end a sleep", "[signal][restart][job_control]") {
  const pid_t child = fork();
  if (child == 0) {
    const timespec wanted{0, 150000000};
    _exit(nanosleep(&wanted, nullptr) == 0 ? 0 : 1);
  }
  usleep(20000);
  kill(child, SIGSTOP);
  int status = 0;
  REQUIRE(waitpid(child, &status, WUNTRACED) == child);
  kill(child, SIGCONT);
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("sigsuspend waits with another mask and puts the old one back", "[signal]") {
  const ScopedAction action(SIGUSR1, Count);
  g_count = 0;
  const ScopedBlock block{SIGUSR1};
  raise(SIGUSR1);
  sigset_t none;
  sigemptyset(&none);
  CHECK(sigsuspend(&none) == -1);
  CHECK(errno == EINTR);
  CHECK(g_count == 1);
  sigset_t now;
  sigprocmask(SIG_BLOCK, nullptr, &now);
  CHECK(sigismember(&now, SIGUSR1) == 1);
}

TEST_CASE("sigtimedwait times out, takes what comes, and is interrupted", "[signal]") {
  const ScopedBlock block{SIGUSR1};
  const timespec brief{0, 10000000};
  CHECK(sigtimedwait(block.set(), nullptr, &brief) == -1);
  CHECK(errno == EAGAIN);
  const pid_t self = getpid();
  std::thread sender([self] {
    usleep(10000);
    kill(self, SIGUSR1);
  });
  const timespec limit{5, 0};
  CHECK(sigtimedwait(block.set(), nullptr, &limit) == SIGUSR1);
  sender.join();
  const timespec wrong{0, 1000000000};
  CHECK(sigtimedwait(block.set(), nullptr, &wrong) == -1);
  CHECK(errno == EINVAL);
  const ScopedAction action(SIGALRM, Count);
  const itimerval soon{{0, 0}, {0, 10000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  CHECK(sigtimedwait(block.set(), nullptr, &limit) == -1);
  CHECK(errno == EINTR);
}

TEST_CASE("timers and many signals at once lose nothing", "[signal][stress]") {
  const ScopedAction action(SIGRTMIN + 2, Count, SA_RESTART);
  g_count = 0;
  constexpr int kSignals = 500;
  const pid_t self = getpid();
  const pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < kSignals; ++i) {
      while (sigqueue(self, SIGRTMIN + 2, sigval{}) != 0) usleep(100);
    }
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) == -1 && errno == EINTR) {
  }
  for (int i = 0; i < 1000 && g_count < kSignals; ++i) usleep(1000);
  CHECK(g_count == kSignals);
}

}  // namespace
