// The test programs' own ground: what CTest is told when a program passes, fails or cannot run.

#include <sys/wait.h>
#include <unistd.h>

#include "catch2/catch.hpp"
#include "test/support/skip.h"

TEST_CASE("a program that cannot run here exits 77", "[support]") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    close(STDERR_FILENO);
    test::SkipProgram("on purpose");
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == test::kSkipExitCode);
}
