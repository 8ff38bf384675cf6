#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstdint>

#include "catch2/catch.hpp"
#include "test/support/test_task.h"

namespace {

using test::TestTask;

TEST_CASE("setresuid away from root is for good", "[syscalls][cred]") {
  TestTask task;
  REQUIRE(task.Call(SYS_setresuid, 1000, 1001, 1002) == 0);
  REQUIRE(task.Call(SYS_getresuid, TestTask::kPage, TestTask::kPage + 4, TestTask::kPage + 8) == 0);
  CHECK(task.Peek<std::array<uint32_t, 3>>(TestTask::kPage) ==
        std::array<uint32_t, 3>{1000, 1001, 1002});
  CHECK(task.task().own_credentials().effective == 0);
  CHECK(task.Call(SYS_setuid, 0) == -EPERM);
  CHECK(task.Call(SYS_setuid, 1002) == 0);
  CHECK(task.Call(SYS_geteuid) == 1002);
  CHECK(task.Call(SYS_getuid) == 1000);
}

TEST_CASE("no id is minus one", "[syscalls][cred]") {
  TestTask task;
  CHECK(task.Call(SYS_setuid, -1) == -EINVAL);
  CHECK(task.Call(SYS_setgid, -1) == -EINVAL);
  CHECK(task.Call(SYS_setresuid, -1, -1, -1) == 0);
}

TEST_CASE("a fault at each of getresuid's words is EFAULT", "[syscalls][cred][efault]") {
  const uint64_t short_by = GENERATE(range(1, 5));
  TestTask task;
  const uint64_t bad = TestTask::kPageEnd - 4 + short_by;
  CHECK(task.Call(SYS_getresuid, bad, TestTask::kPage, TestTask::kPage) == -EFAULT);
  CHECK(task.Call(SYS_getresuid, TestTask::kPage, bad, TestTask::kPage) == -EFAULT);
  CHECK(task.Call(SYS_getresuid, TestTask::kPage, TestTask::kPage, bad) == -EFAULT);
}

TEST_CASE("groups are bounded and need a privilege", "[syscalls][cred][limits]") {
  TestTask task;
  CHECK(task.Call(SYS_setgroups, 65537, TestTask::kPage) == -EINVAL);
  task.Poke(TestTask::kPage, std::array<uint32_t, 2>{9, 5});
  CHECK(task.Call(SYS_setgroups, 2, TestTask::kPage) == 0);
  CHECK(task.Call(SYS_getgroups, 0, 0) == 2);
  CHECK(task.Call(SYS_getgroups, 1, TestTask::kPage) == -EINVAL);
  CHECK(task.task().own_credentials().InGroup(5));
  REQUIRE(task.Call(SYS_setresuid, 1000, 1000, 1000) == 0);
  CHECK(task.Call(SYS_setgroups, 0, 0) == -EPERM);
}

TEST_CASE("limits: soft within hard, hard only down without privilege", "[syscalls][rlimit]") {
  TestTask task;
  using Limit = std::array<uint64_t, 2>;
  task.Poke(TestTask::kPage, Limit{20, 10});
  CHECK(task.Call(SYS_setrlimit, RLIMIT_NOFILE, TestTask::kPage) == -EINVAL);
  CHECK(task.Call(SYS_getrlimit, 16, TestTask::kPage) == -EINVAL);
  task.Poke(TestTask::kPage, Limit{10, 20});
  REQUIRE(task.Call(SYS_setrlimit, RLIMIT_NOFILE, TestTask::kPage) == 0);
  CHECK(task.task().fd_limit() == 10);
  REQUIRE(task.Call(SYS_setresuid, 1000, 1000, 1000) == 0);
  task.Poke(TestTask::kPage, Limit{10, 21});
  CHECK(task.Call(SYS_setrlimit, RLIMIT_NOFILE, TestTask::kPage) == -EPERM);
  CHECK(task.Call(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, TestTask::kPage) == 0);
  CHECK(task.Peek<Limit>(TestTask::kPage) == Limit{10, 20});
}

TEST_CASE("the process limit counts a user's tasks", "[syscalls][rlimit][limits]") {
  TestTask task;
  task.task().group().limits().Set(RLIMIT_NPROC, {1, 1});
  const int64_t first = task.Call(SYS_fork);
  CHECK(first > 0);  // Root is exempt.
  REQUIRE(task.Call(SYS_setresuid, 1000, 1000, 1000) == 0);
  CHECK(task.Call(SYS_fork) == -EAGAIN);
}

}  // namespace
