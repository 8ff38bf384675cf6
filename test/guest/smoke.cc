// The least that must work: a static program starts, makes calls, writes, and ends with its status.

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "catch2/catch.hpp"

TEST_CASE("getpid is stable and positive", "[smoke]") {
  const pid_t pid = getpid();
  CHECK(pid > 0);
  CHECK(getpid() == pid);
}

TEST_CASE("write to a closed descriptor is refused", "[smoke]") {
  CHECK(write(999, "x", 1) == -1);
  CHECK(errno == EBADF);
}

TEST_CASE("a child's exit status arrives", "[smoke]") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) _exit(42);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 42);
}

TEST_CASE("a pipe carries bytes", "[smoke]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  REQUIRE(write(ends[1], "ravelin", 7) == 7);
  char buffer[16] = {};
  REQUIRE(read(ends[0], buffer, sizeof(buffer)) == 7);
  CHECK(std::strcmp(buffer, "ravelin") == 0);
  close(ends[0]);
  close(ends[1]);
}
