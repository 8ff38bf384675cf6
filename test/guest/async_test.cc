// Signal-driven I/O: F_SETOWN, F_SETSIG, O_ASYNC (fcntl(2)).

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <ctime>

#include "catch2/catch.hpp"

namespace {

// Waits for `signal`, which is blocked; its number, or -1 after a while.
int WaitFor(int signal, siginfo_t* info = nullptr, long milliseconds = 5000) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, signal);
  const timespec timeout{milliseconds / 1000, milliseconds % 1000 * 1'000'000};
  return sigtimedwait(&set, info, &timeout);
}

struct Blocked {
  explicit Blocked(int signal) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    sigprocmask(SIG_BLOCK, &set, &old);
  }
  ~Blocked() { sigprocmask(SIG_SETMASK, &old, nullptr); }
  Blocked(const Blocked&) = delete;
  Blocked& operator=(const Blocked&) = delete;
  sigset_t old;
};

struct Pipe {
  Pipe() { REQUIRE(pipe(fds) == 0); }
  ~Pipe() {
    close(fds[0]);
    close(fds[1]);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  int fds[2];
};

}  // namespace

TEST_CASE("a pipe that gets data sends SIGIO to its owner", "[async][signal]") {
  const Blocked blocked(SIGIO);
  const Pipe pipe;
  REQUIRE(fcntl(pipe.fds[0], F_SETOWN, getpid()) == 0);
  CHECK(fcntl(pipe.fds[0], F_GETOWN) == getpid());
  REQUIRE(fcntl(pipe.fds[0], F_SETFL, O_ASYNC) == 0);
  CHECK((fcntl(pipe.fds[0], F_GETFL) & O_ASYNC) != 0);
  REQUIRE(write(pipe.fds[1], "x", 1) == 1);
  CHECK(WaitFor(SIGIO) == SIGIO);
  REQUIRE(fcntl(pipe.fds[0], F_SETFL, 0) == 0);
  char byte = 0;
  REQUIRE(read(pipe.fds[0], &byte, 1) == 1);
  REQUIRE(write(pipe.fds[1], "x", 1) == 1);
  CHECK(WaitFor(SIGIO, nullptr, 100) == -1);
}

TEST_CASE("F_SETSIG chooses the signal, which tells descriptor and reason", "[async][signal]") {
  const int signal = SIGRTMIN + 3;
  const Blocked blocked(signal);
  int fds[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
  CHECK(fcntl(fds[0], F_GETSIG) == 0);
  REQUIRE(fcntl(fds[0], F_SETSIG, signal) == 0);
  CHECK(fcntl(fds[0], F_GETSIG) == signal);
  CHECK(fcntl(fds[0], F_SETSIG, 65) == -1);
  CHECK(errno == EINVAL);
  REQUIRE(fcntl(fds[0], F_SETOWN, getpid()) == 0);
  int on = 1;
  REQUIRE(ioctl(fds[0], FIOASYNC, &on) == 0);
  CHECK((fcntl(fds[0], F_GETFL) & O_ASYNC) != 0);
  REQUIRE(write(fds[1], "x", 1) == 1);
  siginfo_t info{};
  REQUIRE(WaitFor(signal, &info) == signal);
  CHECK(info.si_code == POLL_IN);
  CHECK(info.si_fd == fds[0]);
  CHECK((info.si_band & POLLIN) != 0);
  close(fds[0]);
  close(fds[1]);
}

TEST_CASE("a child, a thread or a group can be the owner", "[async][signal]") {
  const Pipe data, ready;
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);
    const Blocked blocked(SIGIO);
    if (write(ready.fds[1], "r", 1) != 1) _exit(1);
    if (WaitFor(SIGIO) != SIGIO) _exit(2);
    if (write(ready.fds[1], "r", 1) != 1) _exit(3);
    _exit(WaitFor(SIGIO) == SIGIO ? 0 : 4);
  }
  char byte = 0;
  REQUIRE(read(ready.fds[0], &byte, 1) == 1);
  REQUIRE(fcntl(data.fds[0], F_SETOWN, child) == 0);
  REQUIRE(fcntl(data.fds[0], F_SETFL, O_ASYNC) == 0);
  REQUIRE(write(data.fds[1], "x", 1) == 1);
  REQUIRE(read(ready.fds[0], &byte, 1) == 1);
  REQUIRE(read(data.fds[0], &byte, 1) == 1);
  REQUIRE(fcntl(data.fds[0], F_SETOWN, -child) == 0);
  CHECK(fcntl(data.fds[0], F_GETOWN) == -child);
  REQUIRE(write(data.fds[1], "x", 1) == 1);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);

  f_owner_ex owner{F_OWNER_TID, static_cast<pid_t>(syscall(SYS_gettid))};
  REQUIRE(fcntl(data.fds[0], F_SETOWN_EX, &owner) == 0);
  f_owner_ex got{};
  REQUIRE(fcntl(data.fds[0], F_GETOWN_EX, &got) == 0);
  CHECK(got.type == F_OWNER_TID);
  CHECK(got.pid == owner.pid);
}

TEST_CASE("a file that closes tells nobody of its own end", "[async][signal]") {
  const Blocked blocked(SIGIO);
  int fds[2];
  REQUIRE(pipe(fds) == 0);
  for (const int fd : fds) {
    REQUIRE(fcntl(fd, F_SETOWN, getpid()) == 0);
    REQUIRE(fcntl(fd, F_SETFL, O_ASYNC) == 0);
  }
  close(fds[0]);
  while (WaitFor(SIGIO, nullptr, 10) == SIGIO) {  // The writer hears that its reader has gone.
  }
  close(fds[1]);
  CHECK(WaitFor(SIGIO, nullptr, 50) == -1);
}

TEST_CASE("owners are checked", "[async]") {
  const Pipe pipe;
  CHECK(fcntl(pipe.fds[0], F_SETOWN, 0x3ffffff) == -1);
  CHECK(errno == ESRCH);
  CHECK(fcntl(pipe.fds[0], F_SETOWN, INT_MIN) == -1);
  CHECK(errno == EINVAL);
  const int owner[2] = {7, getpid()};
  CHECK(fcntl(pipe.fds[0], F_SETOWN_EX, owner) == -1);
  CHECK(errno == EINVAL);
  CHECK(fcntl(pipe.fds[0], F_GETOWN) == 0);
  REQUIRE(fcntl(pipe.fds[0], F_SETOWN, getpid()) == 0);
  REQUIRE(fcntl(pipe.fds[0], F_SETOWN, 0) == 0);
  CHECK(fcntl(pipe.fds[0], F_GETOWN) == 0);
}

TEST_CASE("a regular file has nobody to tell", "[async]") {
  char path[] = "/tmp/ravelin-async-XXXXXX";
  const int fd = mkstemp(path);
  REQUIRE(fd >= 0);
  unlink(path);
  CHECK(fcntl(fd, F_SETFL, O_ASYNC) == 0);
  CHECK((fcntl(fd, F_GETFL) & O_ASYNC) == 0);
  int on = 1;
  CHECK(ioctl(fd, FIOASYNC, &on) == -1);
  CHECK(errno == ENOTTY);
  close(fd);
}

TEST_CASE("the end of the other side and free room are told, too", "[async][signal]") {
  const int signal = SIGRTMIN + 4;
  const Blocked blocked(signal);
  int fds[2];
  REQUIRE(pipe(fds) == 0);
  REQUIRE(fcntl(fds[1], F_SETSIG, signal) == 0);
  REQUIRE(fcntl(fds[1], F_SETOWN, getpid()) == 0);
  REQUIRE(fcntl(fds[1], F_SETFL, O_ASYNC | O_NONBLOCK) == 0);
  char block[4096] = {};
  while (write(fds[1], block, sizeof(block)) > 0) {
  }
  while (WaitFor(signal, nullptr, 1) == signal) {
  }
  REQUIRE(read(fds[0], block, sizeof(block)) == sizeof(block));
  siginfo_t info{};
  REQUIRE(WaitFor(signal, &info) == signal);
  CHECK(info.si_code == POLL_OUT);
  close(fds[0]);
  CHECK(WaitFor(signal, &info) == signal);
  close(fds[1]);
}
