// Record locks of processes and of open file descriptions, and flock.

#include <sys/file.h>

#include <csignal>

#include "test/guest/files_support.h"

namespace {

using test::Code;
using test::Fd;
using test::InChild;
using test::Make;
using test::Open;
using test::Scratch;

long Lock(int fd, int command, short type, off_t start, off_t length,
          struct flock* result = nullptr) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  const long code = Code(fcntl(fd, command, &lock));
  if (result != nullptr) *result = lock;
  return code;
}

TEST_CASE("another process cannot take a locked range", "[lock]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  CHECK(Lock(fd, F_SETLK, F_WRLCK, 10, 10) == 0);
  const pid_t self = getpid();
  CHECK(InChild([&] {
          const int other = open("f", O_RDWR);
          if (Lock(other, F_SETLK, F_RDLCK, 19, 1) != -EAGAIN) return 1;
          if (Lock(other, F_SETLK, F_RDLCK, 20, 1) != 0) return 2;
          if (Lock(other, F_SETLK, F_WRLCK, 0, 10) != 0) return 3;
          struct flock found{};
          if (Lock(other, F_GETLK, F_WRLCK, 0, 0, &found) != 0) return 4;
          if (found.l_type != F_WRLCK || found.l_start != 10 || found.l_len != 10) return 5;
          return found.l_pid == self ? 0 : 6;
        }) == 0);
  // The child's locks went with it.
  CHECK(Lock(fd, F_SETLK, F_WRLCK, 0, 0) == 0);
}

TEST_CASE("a process's own locks merge and split", "[lock]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  CHECK(Lock(fd, F_SETLK, F_WRLCK, 0, 100) == 0);
  CHECK(Lock(fd, F_SETLK, F_UNLCK, 40, 20) == 0);
  CHECK(Lock(fd, F_SETLK, F_RDLCK, 80, 20) == 0);
  CHECK(InChild([&] {
          const int other = open("f", O_RDWR);
          if (Lock(other, F_SETLK, F_WRLCK, 40, 20) != 0) return 1;
          if (Lock(other, F_SETLK, F_WRLCK, 39, 1) != -EAGAIN) return 2;
          if (Lock(other, F_SETLK, F_RDLCK, 80, 20) != 0) return 3;
          if (Lock(other, F_SETLK, F_RDLCK, 79, 1) != -EAGAIN) return 4;
          return 0;
        }) == 0);
}

TEST_CASE("closing any descriptor ends a process's locks", "[lock]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  CHECK(Lock(fd, F_SETLK, F_WRLCK, 0, 0) == 0);
  Open("f", O_RDONLY).Close();
  CHECK(InChild([&] {
          const int other = open("f", O_RDWR);
          return Lock(other, F_SETLK, F_WRLCK, 0, 0) == 0 ? 0 : 1;
        }) == 0);
}

TEST_CASE("locks need the right access mode", "[lock]") {
  const Scratch scratch;
  Make("f");
  const Fd reader = Open("f", O_RDONLY);
  const Fd writer = Open("f", O_WRONLY);
  CHECK(Lock(reader, F_SETLK, F_WRLCK, 0, 0) == -EBADF);
  CHECK(Lock(writer, F_SETLK, F_RDLCK, 0, 0) == -EBADF);
  CHECK(Lock(reader, F_SETLK, 7, 0, 0) == -EINVAL);
  CHECK(Lock(reader, F_SETLK, F_RDLCK, -1, 0) == -EINVAL);
}

TEST_CASE("descriptions own their locks", "[lock]") {
  const Scratch scratch;
  const Fd a = Open("f", O_CREAT | O_RDWR);
  Fd b = Open("f", O_RDWR);
  CHECK(Lock(a, F_OFD_SETLK, F_WRLCK, 0, 10) == 0);
  CHECK(Lock(b, F_OFD_SETLK, F_RDLCK, 5, 1) == -EAGAIN);
  struct flock found{};
  CHECK(Lock(b, F_OFD_GETLK, F_WRLCK, 0, 0, &found) == 0);
  CHECK(found.l_pid == -1);
  CHECK(Lock(b, F_SETLK, F_WRLCK, 0, 1) == -EAGAIN);
  const Fd copy(dup(a));
  CHECK(Lock(copy, F_OFD_SETLK, F_UNLCK, 0, 10) == 0);
  CHECK(Lock(b, F_OFD_SETLK, F_WRLCK, 0, 0) == 0);
  CHECK(Lock(a, F_OFD_SETLK, F_RDLCK, 0, 1) == -EAGAIN);
  b.Close();
  CHECK(Lock(a, F_OFD_SETLK, F_RDLCK, 0, 1) == 0);
}

TEST_CASE("a waiting lock gets its turn", "[lock]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  REQUIRE(Lock(fd, F_SETLK, F_WRLCK, 0, 0) == 0);
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t child = fork();
  if (child == 0) {
    const int other = open("f", O_RDWR);
    if (write(ready[1], "x", 1) != 1) _exit(1);
    _exit(Lock(other, F_SETLKW, F_WRLCK, 0, 0) == 0 ? 0 : 2);
  }
  char byte = 0;
  CHECK(read(ready[0], &byte, 1) == 1);
  usleep(50000);
  CHECK(waitpid(child, nullptr, WNOHANG) == 0);
  CHECK(Lock(fd, F_SETLK, F_UNLCK, 0, 0) == 0);
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
  close(ready[0]);
  close(ready[1]);
}

TEST_CASE("two processes that wait for each other are told", "[lock]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  REQUIRE(Lock(fd, F_SETLK, F_WRLCK, 0, 1) == 0);
  int ready[2];
  REQUIRE(pipe(ready) == 0);
  const pid_t child = fork();
  if (child == 0) {
    const int other = open("f", O_RDWR);
    if (Lock(other, F_SETLK, F_WRLCK, 1, 1) != 0 || write(ready[1], "x", 1) != 1) _exit(1);
    _exit(Lock(other, F_SETLKW, F_WRLCK, 0, 1) == 0 ? 0 : 2);
  }
  char byte = 0;
  CHECK(read(ready[0], &byte, 1) == 1);
  usleep(100000);
  CHECK(Lock(fd, F_SETLKW, F_WRLCK, 1, 1) == -EDEADLK);
  CHECK(Lock(fd, F_SETLK, F_UNLCK, 0, 1) == 0);
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
  close(ready[0]);
  close(ready[1]);
}

TEST_CASE("a signal interrupts a waiting lock", "[lock]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  REQUIRE(Lock(fd, F_SETLK, F_WRLCK, 0, 0) == 0);
  CHECK(InChild([] {
          struct sigaction action{};
          action.sa_handler = [](int) {};
          sigaction(SIGALRM, &action, nullptr);
          const int other = open("f", O_RDWR);
          ualarm(50000, 0);
          return Lock(other, F_SETLKW, F_WRLCK, 0, 0) == -EINTR ? 0 : 1;
        }) == 0);
}

TEST_CASE("flock is shared or exclusive, by description", "[lock]") {
  const Scratch scratch;
  const Fd a = Open("f", O_CREAT | O_RDWR);
  const Fd b = Open("f", O_RDWR);
  Fd c = Open("f", O_RDONLY);
  CHECK(flock(a, LOCK_SH) == 0);
  CHECK(flock(b, LOCK_SH | LOCK_NB) == 0);
  CHECK(Code(flock(c, LOCK_EX | LOCK_NB)) == -EWOULDBLOCK);
  CHECK(flock(a, LOCK_UN) == 0);
  CHECK(flock(b, LOCK_UN) == 0);
  CHECK(flock(c, LOCK_EX | LOCK_NB) == 0);
  CHECK(InChild([&] { return flock(c, LOCK_EX | LOCK_NB) == 0 ? 0 : 1; }) == 0);
  CHECK(Code(flock(a, LOCK_SH | LOCK_NB)) == -EWOULDBLOCK);
  CHECK(Code(flock(a, 0)) == -EINVAL);
  c.Close();
  CHECK(flock(a, LOCK_EX | LOCK_NB) == 0);
}

}  // namespace
