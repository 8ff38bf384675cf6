// Leases and directory notices (fcntl(2): F_SETLEASE, F_NOTIFY).

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <string>

#include "catch2/catch.hpp"

namespace {

// A directory of its own with one file. In /dev/shm, where every kernel has leases.
struct Scratch {
  Scratch() {
    REQUIRE(mkdtemp(directory) != nullptr);
    file = std::string(directory) + "/file";
    const int fd = open(file.c_str(), O_CREAT | O_WRONLY, 0600);
    REQUIRE(fd >= 0);
    close(fd);
  }
  ~Scratch() {
    unlink(file.c_str());
    rmdir(directory);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  char directory[32] = "/dev/shm/ravelin-XXXXXX";
  std::string file;
};

struct Blocked {
  explicit Blocked(int number) : signal(number) {
    sigemptyset(&set);
    sigaddset(&set, signal);
    sigprocmask(SIG_BLOCK, &set, &old);
  }
  ~Blocked() { sigprocmask(SIG_SETMASK, &old, nullptr); }
  Blocked(const Blocked&) = delete;
  Blocked& operator=(const Blocked&) = delete;
  bool Arrives(long milliseconds = 5000, siginfo_t* info = nullptr) const {
    const timespec limit{milliseconds / 1000, milliseconds % 1000 * 1'000'000};
    return sigtimedwait(&set, info, &limit) == signal;
  }
  const int signal;
  sigset_t set, old;
};

}  // namespace

TEST_CASE("a lease is had if nobody is in the way", "[lease]") {
  const Scratch scratch;
  const int reader = open(scratch.file.c_str(), O_RDONLY);
  REQUIRE(reader >= 0);
  CHECK(fcntl(reader, F_GETLEASE) == F_UNLCK);
  CHECK(fcntl(reader, F_SETLEASE, F_UNLCK) == -1);
  CHECK(errno == EAGAIN);
  CHECK(fcntl(reader, F_SETLEASE, F_RDLCK) == 0);
  CHECK(fcntl(reader, F_GETLEASE) == F_RDLCK);
  const int other = open(scratch.file.c_str(), O_RDONLY);
  REQUIRE(other >= 0);
  CHECK(fcntl(other, F_SETLEASE, F_WRLCK) == -1);
  CHECK(errno == EAGAIN);
  CHECK(fcntl(other, F_SETLEASE, 77) == -1);
  CHECK(errno == EINVAL);
  CHECK(fcntl(reader, F_SETLEASE, F_UNLCK) == 0);
  close(other);
  CHECK(fcntl(reader, F_SETLEASE, F_WRLCK) == 0);
  CHECK(fcntl(reader, F_GETLEASE) == F_WRLCK);
  close(reader);
  const int writer = open(scratch.file.c_str(), O_WRONLY | O_NONBLOCK);
  CHECK(writer >= 0);
  CHECK(fcntl(writer, F_SETLEASE, F_RDLCK) == -1);
  CHECK(errno == EAGAIN);
  close(writer);
}

TEST_CASE("a writer waits until the holder has been told and gives up", "[lease][signal]") {
  const Scratch scratch;
  const Blocked blocked(SIGIO);
  const int reader = open(scratch.file.c_str(), O_RDONLY);
  REQUIRE(reader >= 0);
  REQUIRE(fcntl(reader, F_SETLEASE, F_RDLCK) == 0);
  CHECK(open(scratch.file.c_str(), O_WRONLY | O_NONBLOCK) == -1);
  CHECK(errno == EWOULDBLOCK);
  CHECK(blocked.Arrives());
  CHECK(fcntl(reader, F_GETLEASE) == F_UNLCK);
  const pid_t child = fork();
  if (child == 0) _exit(open(scratch.file.c_str(), O_WRONLY) >= 0 ? 0 : 1);
  usleep(20'000);
  CHECK(waitpid(child, nullptr, WNOHANG) == 0);
  CHECK(fcntl(reader, F_SETLEASE, F_UNLCK) == 0);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  close(reader);
}

TEST_CASE("a directory tells of what happens in it", "[dnotify][signal]") {
  const Scratch scratch;
  const int signal = SIGRTMIN + 2;
  const Blocked blocked(signal);
  const int directory = open(scratch.directory, O_RDONLY | O_DIRECTORY);
  REQUIRE(directory >= 0);
  REQUIRE(fcntl(directory, F_SETSIG, signal) == 0);
  REQUIRE(fcntl(directory, F_NOTIFY, DN_CREATE) == 0);
  const std::string made = std::string(scratch.directory) + "/made";
  const auto create = [&made] {
    const int fd = open(made.c_str(), O_CREAT | O_WRONLY, 0600);
    close(fd);
  };
  create();
  siginfo_t info{};
  REQUIRE(blocked.Arrives(5000, &info));
  CHECK(info.si_fd == directory);
  unlink(made.c_str());
  create();  // Once was asked for.
  CHECK_FALSE(blocked.Arrives(20));
  REQUIRE(fcntl(directory, F_NOTIFY, DN_DELETE | DN_MULTISHOT) == 0);
  unlink(made.c_str());
  CHECK(blocked.Arrives());
  create();
  unlink(made.c_str());
  CHECK(blocked.Arrives());
  const int file = open(scratch.file.c_str(), O_RDONLY);
  CHECK(fcntl(file, F_NOTIFY, DN_CREATE) == -1);
  CHECK(errno == ENOTDIR);
  close(file);
  close(directory);
}
