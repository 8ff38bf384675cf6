// Sessions, process groups, stops, orphaned groups.

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "catch2/catch.hpp"

namespace {

template <typename Body>
int InChild(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    for (int i = 1; i < 32; ++i) signal(i, SIG_DFL);
    _exit(body());
  }
  int status = 0;
  while (waitpid(child, &status, 0) == -1 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

pid_t ForkSleeper() {
  const pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  return child;
}

TEST_CASE("setsid makes a session and a group of that id", "[job_control]") {
  CHECK(InChild([] {
          const pid_t sid = setsid();
          if (sid != getpid() || getsid(0) != sid || getpgrp() != sid) return 1;
          if (setsid() != -1 || errno != EPERM) return 2;
          if (setpgid(0, 0) != -1 || errno != EPERM) return 3;
          return 0;
        }) == 0);
}

TEST_CASE("a process group leader cannot make a session", "[job_control]") {
  CHECK(InChild([] {
          if (setpgid(0, 0) != 0) return 1;
          return setsid() == -1 && errno == EPERM ? 0 : 2;
        }) == 0);
}

TEST_CASE("setpgid: strangers, other sessions, missing groups", "[job_control]") {
  CHECK(setpgid(0x3ffffff, 0) == -1);
  CHECK(errno == ESRCH);
  CHECK(setpgid(0, -1) == -1);
  CHECK(errno == EINVAL);
  // One's parent is a stranger, too.
  const pid_t asker = fork();
  if (asker == 0) _exit(setpgid(getppid(), 0) == -1 && errno == ESRCH ? 0 : 1);
  int status = -1;
  REQUIRE(waitpid(asker, &status, 0) == asker);
  CHECK(status == 0);
  const pid_t child = ForkSleeper();
  CHECK(setpgid(child, 0x3ffffff) == -1);
  CHECK(errno == EPERM);
  CHECK(setpgid(child, child) == 0);
  CHECK(getpgid(child) == child);
  const pid_t second = ForkSleeper();
  CHECK(setpgid(second, child) == 0);
  CHECK(getpgid(second) == child);
  kill(-child, SIGKILL);
  CHECK(waitpid(child, nullptr, 0) == child);
  CHECK(waitpid(second, nullptr, 0) == second);
}

TEST_CASE("a parent may not move a child after its execve", "[job_control]") {
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ready[1], 1);
    fcntl(ready[1], F_SETFD, FD_CLOEXEC);
    fcntl(ready[0], F_SETFD, FD_CLOEXEC);
    execl("/proc/self/exe", "self", "--list-tags", static_cast<char*>(nullptr));
    _exit(1);
  }
  close(ready[1]);
  char byte = 0;
  REQUIRE(read(ready[0], &byte, 1) == 1);  // The new program runs (or has ended and is a zombie).
  CHECK(setpgid(child, child) == -1);
  CHECK((errno == EACCES || errno == ESRCH));
  while (read(ready[0], &byte, 1) == 1) {
  }
  close(ready[0]);
  CHECK(waitpid(child, nullptr, 0) == child);
}

TEST_CASE("a signal to a group reaches all of it", "[job_control]") {
  CHECK(InChild([] {
          setpgid(0, 0);
          signal(SIGUSR1, SIG_IGN);
          pid_t children[3];
          for (pid_t& child : children) {
            child = fork();
            if (child == 0) {
              signal(SIGUSR1, SIG_DFL);
              while (true) pause();
            }
          }
          usleep(20000);
          if (kill(0, SIGUSR1) != 0) return 1;
          for (const pid_t child : children) {
            int status = 0;
            if (waitpid(child, &status, 0) != child || !WIFSIGNALED(status) ||
                WTERMSIG(status) != SIGUSR1)
              return 2;
          }
          return 0;
        }) == 0);
}

TEST_CASE("all threads stop, and all go on", "[job_control][thread]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    std::thread([&ends] {
      while (true) {
        if (write(ends[1], "t", 1) != 1) _exit(1);
        usleep(2000);
      }
    }).detach();
    while (true) pause();
  }
  char byte = 0;
  REQUIRE(read(ends[0], &byte, 1) == 1);
  kill(child, SIGSTOP);
  int status = 0;
  REQUIRE(waitpid(child, &status, WUNTRACED) == child);
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  while (read(ends[0], &byte, 1) == 1) {
  }
  usleep(30000);
  CHECK(read(ends[0], &byte, 1) == -1);
  kill(child, SIGCONT);
  fcntl(ends[0], F_SETFL, 0);
  CHECK(read(ends[0], &byte, 1) == 1);
  kill(child, SIGKILL);
  CHECK(waitpid(child, &status, 0) == child);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("SIGKILL ends a stopped process", "[job_control]") {
  const pid_t child = ForkSleeper();
  int status = 0;
  kill(child, SIGSTOP);
  REQUIRE(waitpid(child, &status, WUNTRACED) == child);
  kill(child, SIGTERM);  // Waits until it goes on.
  usleep(5000);
  CHECK(waitpid(child, &status, WNOHANG) == 0);
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WTERMSIG(status) == SIGKILL);
}

TEST_CASE("SIGCONT takes back a pending stop, and a stop a pending SIGCONT", "[job_control]") {
  CHECK(InChild([] {
          sigset_t set, pending;
          sigemptyset(&set);
          sigaddset(&set, SIGTSTP);
          sigaddset(&set, SIGCONT);
          sigprocmask(SIG_BLOCK, &set, nullptr);
          signal(SIGCONT, [](int) {});
          raise(SIGTSTP);
          raise(SIGCONT);
          sigpending(&pending);
          if (sigismember(&pending, SIGTSTP) != 0 || sigismember(&pending, SIGCONT) != 1) return 1;
          raise(SIGTSTP);
          sigpending(&pending);
          return sigismember(&pending, SIGTSTP) == 1 && sigismember(&pending, SIGCONT) == 0 ? 0 : 2;
        }) == 0);
}

TEST_CASE("a handler of SIGCONT runs when the process goes on", "[job_control]") {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGCONT, [](int) { _exit(61); });
    raise(SIGSTOP);
    _exit(62);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, WUNTRACED) == child);
  REQUIRE(WIFSTOPPED(status));
  kill(child, SIGCONT);
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 61);
}

TEST_CASE("a stopped group that is orphaned gets SIGHUP and SIGCONT", "[job_control]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t middle = fork();
  if (middle == 0) {
    setsid();
    const pid_t child = fork();
    if (child == 0) {
      setpgid(0, 0);
      signal(SIGHUP, [](int) {});
      signal(SIGTSTP, SIG_DFL);
      raise(SIGTSTP);  // Until the group is orphaned.
      _exit(write(ends[1], "h", 1) == 1 ? 0 : 1);
    }
    setpgid(child, child);
    int status = 0;
    if (waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status)) _exit(1);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(middle, &status, 0) == middle);
  REQUIRE(status == 0);
  close(ends[1]);
  char byte = 0;
  CHECK(read(ends[0], &byte, 1) == 1);
  CHECK(byte == 'h');
  close(ends[0]);
}

TEST_CASE("SIGTSTP does not stop a process in an orphaned group", "[job_control]") {
  CHECK(InChild([] {
          setsid();  // Its parent is in another session: orphaned.
          signal(SIGTSTP, SIG_DFL);
          raise(SIGTSTP);
          return 5;
        }) == 5);
}

}  // namespace
