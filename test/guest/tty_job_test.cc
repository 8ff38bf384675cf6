// Controlling terminals and job control: sessions of their own, made in children.

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <string>

#include "catch2/catch.hpp"

namespace {

// The test framework's handlers are not for children that are to be killed.
void DefaultSignals() {
  for (const int signal_number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) signal(signal_number, SIG_DFL);
}

// Runs `program` as the leader of a new session with a new terminal; returns its wait status.
// `drive` works the master meanwhile.
template <typename Program, typename Drive>
int InSession(Program&& program, Drive&& drive) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  REQUIRE(master >= 0);
  REQUIRE(unlockpt(master) == 0);
  const std::string name = ptsname(master);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    DefaultSignals();
    setsid();
    const int slave = open(name.c_str(), O_RDWR);  // Becomes the controlling terminal.
    close(master);
    _exit(slave < 0 ? 99 : program(slave));
  }
  drive(master);
  int status = -1;
  waitpid(child, &status, 0);
  close(master);
  return status;
}

void WaitFor(int master, char wanted) {
  char byte = 0;
  while (read(master, &byte, 1) == 1 && byte != wanted) {
  }
}

void Nothing(int) {}

volatile sig_atomic_t g_signals = 0;
void Count(int) { g_signals = g_signals + 1; }

int WaitChild(pid_t child, int options = 0) {
  int status = -1;
  while (waitpid(child, &status, options) == -1 && errno == EINTR) {
  }
  return status;
}

}  // namespace

TEST_CASE("a session leader gets the first terminal it opens", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        if (tcgetsid(slave) != getpid()) return 1;
        if (tcgetpgrp(slave) != getpgrp()) return 2;
        const int tty = open("/dev/tty", O_RDWR);
        if (tty < 0) return 3;
        if (tcgetpgrp(tty) != getpgrp()) return 4;
        return 0;
      },
      Nothing);
  CHECK(status == 0);
}

TEST_CASE("O_NOCTTY leaves the session without a terminal", "[tty][job]") {
  const pid_t child = fork();
  if (child == 0) {
    setsid();
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || unlockpt(master) != 0) _exit(1);
    const int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    if (slave < 0) _exit(2);
    if (open("/dev/tty", O_RDWR) != -1 || errno != ENXIO) _exit(3);
    if (tcgetpgrp(slave) != -1 || errno != ENOTTY) _exit(4);
    if (ioctl(slave, TIOCSCTTY, 0) != 0) _exit(5);
    if (open("/dev/tty", O_RDWR) == -1) _exit(6);
    if (ioctl(slave, TIOCNOTTY) != 0) _exit(7);
    if (open("/dev/tty", O_RDWR) != -1 || errno != ENXIO) _exit(8);
    _exit(0);
  }
  // TIOCNOTTY by the leader hangs up the foreground group: this child.
  const int status = WaitChild(child);
  CHECK((status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGHUP)));
}

TEST_CASE("TIOCSCTTY is for session leaders", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        const pid_t child = fork();
        if (child == 0) {
          const int master = posix_openpt(O_RDWR | O_NOCTTY);
          unlockpt(master);
          const int other = open(ptsname(master), O_RDWR | O_NOCTTY);
          _exit(ioctl(other, TIOCSCTTY, 0) == -1 && errno == EPERM ? 0 : 1);
        }
        (void)slave;
        return WaitChild(child) == 0 ? 0 : 1;
      },
      Nothing);
  CHECK(status == 0);
}

TEST_CASE("^C interrupts the foreground process group", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        (void)!write(slave, "!", 1);
        while (true) pause();
        return 0;
      },
      [](int master) {
        WaitFor(master, '!');
        REQUIRE(write(master, "\x03", 1) == 1);
      });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGINT);
}

TEST_CASE("^C wakes a read with EINTR", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        struct sigaction action = {};
        action.sa_handler = Count;
        sigaction(SIGINT, &action, nullptr);
        (void)!write(slave, "!", 1);
        char byte = 0;
        if (read(slave, &byte, 1) != -1 || errno != EINTR) return 1;
        return g_signals == 1 ? 0 : 2;
      },
      [](int master) {
        WaitFor(master, '!');
        usleep(20000);
        REQUIRE(write(master, "\x03", 1) == 1);
      });
  CHECK(status == 0);
}

TEST_CASE("^Z stops and SIGCONT continues a foreground job", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        signal(SIGTTOU, SIG_IGN);
        const pid_t child = fork();
        if (child == 0) {
          setpgid(0, 0);
          tcsetpgrp(slave, getpid());
          signal(SIGTTOU, SIG_DFL);
          (void)!write(slave, "!", 1);
          while (true) pause();
        }
        setpgid(child, child);
        const int stopped = WaitChild(child, WUNTRACED);
        if (!WIFSTOPPED(stopped) || WSTOPSIG(stopped) != SIGTSTP) return 1;
        if (tcsetpgrp(slave, getpgrp()) != 0) return 2;
        kill(child, SIGCONT);
        kill(child, SIGTERM);
        const int ended = WaitChild(child);
        return WIFSIGNALED(ended) && WTERMSIG(ended) == SIGTERM ? 0 : 3;
      },
      [](int master) {
        WaitFor(master, '!');
        REQUIRE(write(master, "\x1a", 1) == 1);
      });
  CHECK(status == 0);
}

TEST_CASE("a background read stops with SIGTTIN", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        const pid_t child = fork();
        if (child == 0) {
          setpgid(0, 0);
          char byte = 0;
          (void)!read(slave, &byte, 1);
          _exit(1);
        }
        setpgid(child, child);
        const int stopped = WaitChild(child, WUNTRACED);
        kill(child, SIGKILL);
        WaitChild(child);
        return WIFSTOPPED(stopped) && WSTOPSIG(stopped) == SIGTTIN ? 0 : 1;
      },
      Nothing);
  CHECK(status == 0);
}

TEST_CASE("a background read fails with EIO if SIGTTIN is ignored", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        const pid_t child = fork();
        if (child == 0) {
          signal(SIGTTIN, SIG_IGN);
          setpgid(0, 0);
          char byte = 0;
          _exit(read(slave, &byte, 1) == -1 && errno == EIO ? 0 : 1);
        }
        return WaitChild(child) == 0 ? 0 : 1;
      },
      Nothing);
  CHECK(status == 0);
}

TEST_CASE("background output is free unless TOSTOP is set", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        pid_t child = fork();
        if (child == 0) {
          setpgid(0, 0);
          _exit(write(slave, "x", 1) == 1 ? 0 : 1);
        }
        if (WaitChild(child) != 0) return 1;
        termios settings = {};
        tcgetattr(slave, &settings);
        settings.c_lflag |= TOSTOP;
        tcsetattr(slave, TCSANOW, &settings);
        child = fork();
        if (child == 0) {
          setpgid(0, 0);
          (void)!write(slave, "x", 1);
          _exit(1);
        }
        setpgid(child, child);
        const int stopped = WaitChild(child, WUNTRACED);
        kill(child, SIGKILL);
        WaitChild(child);
        return WIFSTOPPED(stopped) && WSTOPSIG(stopped) == SIGTTOU ? 0 : 2;
      },
      Nothing);
  CHECK(status == 0);
}

TEST_CASE("a background tcsetattr stops with SIGTTOU", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        const pid_t child = fork();
        if (child == 0) {
          setpgid(0, 0);
          termios settings = {};
          tcgetattr(slave, &settings);
          tcsetattr(slave, TCSANOW, &settings);
          _exit(1);
        }
        setpgid(child, child);
        const int stopped = WaitChild(child, WUNTRACED);
        kill(child, SIGKILL);
        WaitChild(child);
        return WIFSTOPPED(stopped) && WSTOPSIG(stopped) == SIGTTOU ? 0 : 1;
      },
      Nothing);
  CHECK(status == 0);
}

TEST_CASE("tcsetpgrp takes groups of the session only", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        if (tcsetpgrp(slave, getppid()) != -1 || errno != EPERM) return 1;
        if (tcsetpgrp(slave, 999999) != -1 || errno != ESRCH) return 2;
        if (tcsetpgrp(slave, getpgrp()) != 0) return 3;
        return 0;
      },
      Nothing);
  CHECK(status == 0);
}

TEST_CASE("a new window size sends SIGWINCH to the foreground", "[tty][job]") {
  const int status = InSession(
      [](int slave) {
        signal(SIGWINCH, Count);
        sigset_t blocked;
        sigset_t old;
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGWINCH);
        sigprocmask(SIG_BLOCK, &blocked, &old);
        (void)!write(slave, "!", 1);
        while (g_signals == 0) sigsuspend(&old);
        winsize size = {};
        ioctl(slave, TIOCGWINSZ, &size);
        return size.ws_col == 123 ? 0 : 1;
      },
      [](int master) {
        WaitFor(master, '!');
        const winsize size = {45, 123, 0, 0};
        REQUIRE(ioctl(master, TIOCSWINSZ, &size) == 0);
      });
  CHECK(status == 0);
}

TEST_CASE("closing the master hangs up the session's leader", "[tty][job]") {
  const int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  REQUIRE(unlockpt(master) == 0);
  const std::string name = ptsname(master);
  const pid_t child = fork();
  if (child == 0) {
    close(master);
    DefaultSignals();
    setsid();
    const int slave = open(name.c_str(), O_RDWR);
    (void)!write(slave, "!", 1);
    while (true) pause();
  }
  WaitFor(master, '!');
  close(master);
  const int status = WaitChild(child);
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGHUP);
}

TEST_CASE("the leader's exit hangs up the foreground group", "[tty][job]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const int status = InSession(
      [&](int slave) {
        signal(SIGTTOU, SIG_IGN);
        const pid_t child = fork();
        if (child == 0) {
          setpgid(0, 0);
          tcsetpgrp(slave, getpid());
          signal(SIGHUP, [](int) { _exit(0); });
          close(ends[0]);
          (void)!write(ends[1], "r", 1);
          while (true) pause();
        }
        char byte = 0;
        (void)!read(ends[0], &byte, 1);
        return 0;
      },
      Nothing);
  CHECK(status == 0);
  // Once the child has been hung up and ended, nobody holds the pipe's writing end.
  close(ends[1]);
  char byte = 0;
  CHECK(read(ends[0], &byte, 1) == 0);
  close(ends[0]);
}
