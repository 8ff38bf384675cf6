// wait4 and waitid: which children, which events, what is reported.

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "catch2/catch.hpp"

namespace {

pid_t ForkExit(int status) {
  const pid_t child = fork();
  if (child == 0) _exit(status);
  return child;
}

pid_t ForkSleeper() {
  const pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  return child;
}

TEST_CASE("waiting without children is ECHILD", "[wait]") {
  CHECK(waitpid(-1, nullptr, 0) == -1);
  CHECK(errno == ECHILD);
  CHECK(waitpid(getpid(), nullptr, 0) == -1);
  CHECK(errno == ECHILD);
  siginfo_t info;
  CHECK(waitid(P_ALL, 0, &info, WEXITED) == -1);
  CHECK(errno == ECHILD);
}

TEST_CASE("wait4 and waitid refuse unknown options", "[wait]") {
  CHECK(waitpid(-1, nullptr, 0x100) == -1);
  CHECK(errno == EINVAL);
  siginfo_t info;
  CHECK(waitid(P_ALL, 0, &info, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(waitid(P_ALL, 0, &info, WNOHANG) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("a signal's number and no core are reported", "[wait]") {
  const rlimit none{0, 0};
  const pid_t child = fork();
  if (child == 0) {
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
    _exit(1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGSEGV);
}

TEST_CASE("WNOHANG returns zero while the child lives", "[wait]") {
  const pid_t child = ForkSleeper();
  int status = 77;
  CHECK(waitpid(child, &status, WNOHANG) == 0);
  CHECK(status == 77);
  siginfo_t info;
  info.si_pid = 5;
  info.si_signo = 5;
  CHECK(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG) == 0);
  CHECK(info.si_pid == 0);
  CHECK(info.si_signo == 0);
  kill(child, SIGKILL);
  CHECK(waitpid(child, &status, 0) == child);
}

TEST_CASE("waitpid picks by process group", "[wait]") {
  const pid_t one = ForkSleeper();
  const pid_t two = ForkSleeper();
  REQUIRE(setpgid(two, two) == 0);
  kill(one, SIGKILL);
  kill(two, SIGKILL);
  int status = 0;
  CHECK(waitpid(-two, &status, 0) == two);
  CHECK(waitpid(-two, &status, 0) == -1);
  CHECK(errno == ECHILD);
  CHECK(waitpid(0, &status, 0) == one);
}

TEST_CASE("waitid fills the fields of SIGCHLD", "[wait]") {
  const pid_t child = ForkExit(9);
  siginfo_t info{};
  REQUIRE(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED) == 0);
  CHECK(info.si_signo == SIGCHLD);
  CHECK(info.si_code == CLD_EXITED);
  CHECK(info.si_pid == child);
  CHECK(info.si_uid == getuid());
  CHECK(info.si_status == 9);
}

TEST_CASE("WNOWAIT leaves the child to be waited for again", "[wait]") {
  const pid_t child = ForkExit(3);
  siginfo_t info{};
  for (int i = 0; i < 3; ++i) {
    REQUIRE(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
    CHECK(info.si_status == 3);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(waitpid(child, &status, 0) == -1);
}

TEST_CASE("stops and continuations are reported when asked for", "[wait][job_control]") {
  const pid_t child = ForkSleeper();
  int status = 0;
  kill(child, SIGSTOP);
  REQUIRE(waitpid(child, &status, WUNTRACED) == child);
  REQUIRE(WIFSTOPPED(status));
  CHECK(WSTOPSIG(status) == SIGSTOP);
  CHECK(waitpid(child, &status, WUNTRACED | WNOHANG) == 0);  // Reported once.
  kill(child, SIGCONT);
  REQUIRE(waitpid(child, &status, WCONTINUED) == child);
  CHECK(WIFCONTINUED(status));
  CHECK(waitpid(child, &status, WCONTINUED | WNOHANG) == 0);
  siginfo_t info{};
  kill(child, SIGSTOP);
  REQUIRE(waitid(P_PID, static_cast<id_t>(child), &info, WSTOPPED | WNOWAIT) == 0);
  CHECK(info.si_code == CLD_STOPPED);
  CHECK(info.si_status == SIGSTOP);
  REQUIRE(waitid(P_PID, static_cast<id_t>(child), &info, WSTOPPED) == 0);
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WTERMSIG(status) == SIGKILL);
}

TEST_CASE("clone children without SIGCHLD need __WCLONE or __WALL", "[wait]") {
  const long child = syscall(SYS_clone, 0, nullptr, nullptr, nullptr, 0);
  if (child == 0) _exit(4);
  const auto pid = static_cast<pid_t>(child);
  int status = 0;
  CHECK(waitpid(pid, &status, 0) == -1);
  CHECK(errno == ECHILD);
  CHECK(waitpid(pid, &status, __WALL) == pid);
  const long second = syscall(SYS_clone, SIGUSR2, nullptr, nullptr, nullptr, 0);
  if (second == 0) {
    while (true) pause();
  }
  signal(SIGUSR2, SIG_IGN);
  kill(static_cast<pid_t>(second), SIGKILL);
  CHECK(waitpid(static_cast<pid_t>(second), &status, __WCLONE) == second);
  signal(SIGUSR2, SIG_DFL);
}

TEST_CASE("__WNOTHREAD sees only the thread's own children", "[wait][thread]") {
  pid_t child = 0;
  std::thread([&child] {
    child = ForkSleeper();
    int status = 0;
    CHECK(waitpid(child, &status, __WNOTHREAD | WNOHANG) == 0);
    // Still this thread's: the main one does not see it.
    std::thread([child] {
      int other = 0;
      CHECK(waitpid(child, &other, __WNOTHREAD | WNOHANG) == -1);
      CHECK(errno == ECHILD);
    }).join();
    kill(child, SIGKILL);
    CHECK(waitpid(child, &status, __WNOTHREAD) == child);
  }).join();
}

TEST_CASE("any thread may wait for another's child", "[wait][thread]") {
  const pid_t child = ForkSleeper();
  std::thread([child] {
    kill(child, SIGKILL);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
  }).join();
}

TEST_CASE("ignoring SIGCHLD makes children vanish, and wait waits for all of them", "[wait]") {
  signal(SIGCHLD, SIG_IGN);
  const pid_t child = fork();
  if (child == 0) {
    usleep(20000);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == -1);
  CHECK(errno == ECHILD);
  CHECK(kill(child, 0) == -1);
  signal(SIGCHLD, SIG_DFL);
}

TEST_CASE("SA_NOCLDWAIT leaves no zombie but still sends the signal", "[wait]") {
  static volatile sig_atomic_t seen = 0;
  seen = 0;
  struct sigaction action{};
  action.sa_handler = [](int) { seen = seen + 1; };
  action.sa_flags = SA_NOCLDWAIT;
  sigaction(SIGCHLD, &action, nullptr);
  const pid_t child = ForkExit(0);
  while (waitpid(child, nullptr, 0) == -1 && errno == EINTR) {
  }
  CHECK(errno == ECHILD);
  CHECK(seen == 1);
  signal(SIGCHLD, SIG_DFL);
}

TEST_CASE("SIGCHLD tells who ended and how", "[wait]") {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  const pid_t child = ForkExit(12);
  siginfo_t info{};
  timespec limit{5, 0};
  REQUIRE(sigtimedwait(&set, &info, &limit) == SIGCHLD);
  CHECK(info.si_code == CLD_EXITED);
  CHECK(info.si_pid == child);
  CHECK(info.si_status == 12);
  CHECK(waitpid(child, nullptr, 0) == child);
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
}

TEST_CASE("SA_NOCLDSTOP silences stops", "[wait][job_control]") {
  static volatile sig_atomic_t seen = 0;
  struct sigaction action{};
  action.sa_handler = [](int) { seen = seen + 1; };
  action.sa_flags = SA_NOCLDSTOP | SA_RESTART;
  sigaction(SIGCHLD, &action, nullptr);
  const pid_t child = ForkSleeper();
  int status = 0;
  kill(child, SIGSTOP);
  REQUIRE(waitpid(child, &status, WUNTRACED) == child);
  CHECK(seen == 0);
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(seen == 1);
  signal(SIGCHLD, SIG_DFL);
}

TEST_CASE("wait is interrupted by a handler without SA_RESTART", "[wait]") {
  const pid_t child = ForkSleeper();
  const pid_t self = getpid();
  struct sigaction action{};
  action.sa_handler = [](int) {};
  sigaction(SIGUSR1, &action, nullptr);
  const pid_t killer = fork();
  if (killer == 0) {
    usleep(20000);
    kill(self, SIGUSR1);
    _exit(0);
  }
  CHECK(waitpid(child, nullptr, 0) == -1);
  CHECK(errno == EINTR);
  signal(SIGUSR1, SIG_DFL);
  kill(child, SIGKILL);
  CHECK(waitpid(child, nullptr, 0) == child);
  CHECK(waitpid(killer, nullptr, 0) == killer);
}

TEST_CASE("a child's CPU time is added when it is waited for", "[wait]") {
  rusage before{}, usage{}, after{};
  getrusage(RUSAGE_CHILDREN, &before);
  const pid_t child = fork();
  if (child == 0) {
    timespec start{}, now{};
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
      clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < 100);
    _exit(0);
  }
  int status = 0;
  REQUIRE(wait4(child, &status, 0, &usage) == child);
  getrusage(RUSAGE_CHILDREN, &after);
  const auto used = [](const rusage& r) {
    return (r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000 + r.ru_utime.tv_usec +
           r.ru_stime.tv_usec;
  };
  CHECK(used(usage) > 5000);
  CHECK(used(after) - used(before) >= used(usage) - 1000);
}

TEST_CASE("a non-blocking pidfd makes waitid say EAGAIN", "[wait][pidfd]") {
  const pid_t child = ForkSleeper();
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, child, O_NONBLOCK));
  REQUIRE(pidfd >= 0);
  siginfo_t info{};
  CHECK(waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd), &info, WEXITED) == -1);
  CHECK(errno == EAGAIN);
  CHECK(syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0) == 0);
  CHECK(waitpid(child, nullptr, 0) == child);
  close(pidfd);
}

}  // namespace
