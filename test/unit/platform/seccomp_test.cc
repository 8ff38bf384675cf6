// Each kind of check, seen from a forked child that really has the filter.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <functional>
#include <string>
#include <thread>

#include "catch2/catch.hpp"
#include "platform/base/fd.h"
#include "platform/base/log.h"
#include "platform/seccomp/filter.h"
#include "platform/seccomp/violation.h"

namespace {

using namespace platform::seccomp;  // NOLINT: the vocabulary under test.

constexpr uint32_t kProbe = SYS_getpriority;  // Harmless with any arguments, and not used by libc.

Filter With(std::vector<Row> rows, Action otherwise = kKillProcess) {
  rows.push_back({SYS_exit_group, "exit_group", {}, "the child's end"});
  return Filter{"test", std::move(rows), otherwise};
}

// The wait status of a child that installs `filter`, then runs `body` and exits 0.
int StatusOf(const Filter& filter, const std::function<void()>& body) {
  const auto program = Compile(filter);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (!Install(program).ok()) syscall(SYS_exit_group, 99);
    body();
    syscall(SYS_exit_group, 0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status;
}

bool Passes(const std::vector<Check>& checks, std::initializer_list<uint64_t> arguments) {
  uint64_t a[6] = {};
  size_t count = 0;
  for (const uint64_t value : arguments) a[count++] = value;
  const Filter filter = With({{kProbe, "getpriority", checks, "probe"}}, Fail(ENOTNAM));
  const int status = StatusOf(filter, [&] {
    const long result = syscall(kProbe, a[0], a[1], a[2], a[3], a[4], a[5]);
    syscall(SYS_exit_group, result == -1 && errno == ENOTNAM ? 1 : 2);
  });
  REQUIRE(WIFEXITED(status));
  REQUIRE((WEXITSTATUS(status) == 1 || WEXITSTATUS(status) == 2));
  return WEXITSTATUS(status) == 2;
}

bool KilledBySigsys(int status) { return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS; }

constexpr uint64_t kHigh = uint64_t{1} << 32;

TEST_CASE("a call in the table passes and any other kills the process", "[seccomp]") {
  const Filter filter = With({{SYS_getpid, "getpid", {}, "probe"}});
  CHECK(StatusOf(filter, [] { syscall(SYS_getpid); }) == 0);
  CHECK(KilledBySigsys(StatusOf(filter, [] { syscall(SYS_getppid); })));
  CHECK(KilledBySigsys(StatusOf(filter, [] { syscall(0x3fffffff); })));
}

TEST_CASE("Equals compares both halves", "[seccomp]") {
  const uint64_t value = 7 + 3 * kHigh;
  CHECK(Passes({Equals(0, value)}, {value}));
  CHECK_FALSE(Passes({Equals(0, value)}, {7}));
  CHECK_FALSE(Passes({Equals(0, value)}, {value + 1}));
  CHECK_FALSE(Passes({Equals(0, value)}, {value + kHigh}));
  CHECK(Passes({Equals(5, 9)}, {0, 0, 0, 0, 0, 9}));
  CHECK_FALSE(Passes({Equals(5, 9)}, {9, 9, 9, 9, 9, 0}));
}

TEST_CASE("Equals32 and NotEquals32 ignore the upper half", "[seccomp]") {
  CHECK(Passes({Equals32(1, 7)}, {0, 7 + 5 * kHigh}));
  CHECK_FALSE(Passes({Equals32(1, 7)}, {0, 8}));
  CHECK(Passes({NotEquals32(0, 31)}, {30}));
  CHECK_FALSE(Passes({NotEquals32(0, 31)}, {31}));
  CHECK_FALSE(Passes({NotEquals32(0, 31)}, {31 + kHigh}));
}

TEST_CASE("masks choose bits in either half", "[seccomp]") {
  CHECK(Passes({Without(0, 4)}, {3}));
  CHECK_FALSE(Passes({Without(0, 4)}, {7}));
  CHECK(Passes({Only(0, 3)}, {3}));
  CHECK_FALSE(Passes({Only(0, 3)}, {3 + kHigh}));
  CHECK(Passes({MaskedEquals(0, 0xf0 + 2 * kHigh, 0x50 + 2 * kHigh)}, {0x5a + 3 * kHigh}));
  CHECK_FALSE(Passes({MaskedEquals(0, 0xf0 + 2 * kHigh, 0x50 + 2 * kHigh)}, {0x5a + kHigh}));
}

TEST_CASE("OneOf takes its values and no other", "[seccomp]") {
  const Check check = OneOf(2, {3, 5, 0xffffffffU});
  for (const uint64_t good : {uint64_t{3}, uint64_t{5}, kHigh - 1})
    CHECK(Passes({check}, {0, 0, good}));
  for (const uint64_t bad : {uint64_t{4}, uint64_t{0}, 3 + kHigh})
    CHECK_FALSE(Passes({check}, {0, 0, bad}));
}

TEST_CASE("AtMost is exact at its bound, also across halves", "[seccomp]") {
  for (const uint64_t bound : {uint64_t{10}, kHigh - 1, kHigh, 5 * kHigh + 3}) {
    CAPTURE(bound);
    CHECK(Passes({AtMost(0, bound)}, {bound}));
    CHECK(Passes({AtMost(0, bound)}, {bound - 1}));
    CHECK(Passes({AtMost(0, bound)}, {0}));
    CHECK_FALSE(Passes({AtMost(0, bound)}, {bound + 1}));
    CHECK_FALSE(Passes({AtMost(0, bound)}, {UINT64_MAX}));
  }
  CHECK_FALSE(Passes({HighHalfZero(0)}, {kHigh}));
}

TEST_CASE("CallerIn looks at where the call comes from", "[seccomp]") {
  const auto here = reinterpret_cast<uint64_t>(&syscall);
  CHECK(Passes({CallerIn(here, here + 256)}, {}));
  CHECK_FALSE(Passes({CallerIn(here + 256, here + 512)}, {}));
  CHECK_FALSE(Passes({CallerIn(here - 256, here)}, {}));
  CHECK(Passes({CallerIn(0, UINT64_MAX)}, {}));
}

TEST_CASE("all checks of a row must hold, and rows of one number are alternatives", "[seccomp]") {
  CHECK_FALSE(Passes({Equals(0, 1), Equals(1, 2)}, {1, 3}));
  CHECK(Passes({Equals(0, 1), Equals(1, 2)}, {1, 2}));
  const Filter filter = With({{kProbe, "getpriority", {Equals(0, 1)}, "one"},
                              {kProbe, "getpriority", {Equals(0, 2)}, "two", Fail(EDOM)}});
  CHECK(StatusOf(filter, [] { syscall(kProbe, 1, 0); }) == 0);
  CHECK(StatusOf(filter, [] {
          if (syscall(kProbe, 2, 0) != -1 || errno != EDOM) syscall(SYS_exit_group, 1);
        }) == 0);
  CHECK(KilledBySigsys(StatusOf(filter, [] { syscall(kProbe, 3, 0); })));
  CHECK(CountAllowed(filter) == 2);
}

TEST_CASE("x32 numbers and the 32-bit entry are refused", "[seccomp]") {
  const Filter filter =
      With({{SYS_getpid, "getpid", {}, "probe"}, {20, "writev", {}, "i386 getpid"}});
  CHECK(KilledBySigsys(StatusOf(filter, [] { syscall(0x40000000L | SYS_getpid); })));
  CHECK(KilledBySigsys(StatusOf(filter, [] {
    long result = 20;  // getpid of i386
    asm volatile("int $0x80" : "+a"(result) : : "memory");
  })));
}

TEST_CASE("every number of a full table is found, and no other", "[seccomp]") {
  Filter filter{"test", {}, Fail(ENOTNAM)};
  for (uint32_t number = 0; number < 470; number += 3) {
    if (number != SYS_exit_group)
      filter.rows.push_back({number, "x", {}, "every third", Fail(EDOM)});
  }
  filter.rows.push_back({SYS_exit_group, "exit_group", {}, "end"});
  CHECK(StatusOf(filter, [] {
          for (long number = 0; number < 470; ++number) {
            if (number == SYS_exit_group) continue;
            if (number == 335 || number == 336)
              continue;  // uretprobe, uprobe: exempt in the kernel.
            const int expected = number % 3 == 0 ? EDOM : ENOTNAM;
            if (syscall(number) != -1 || errno != expected) syscall(SYS_exit_group, 1);
          }
        }) == 0);
}

TEST_CASE("a subtree of more than 255 instructions is jumped over", "[seccomp]") {
  Filter filter{"test", {}, Fail(ENOTNAM)};
  for (uint32_t number = 0; number < 100; ++number) {
    filter.rows.push_back(
        {number, "x", {Equals(0, 1), Equals(1, 2), AtMost(2, 3)}, "wide", Fail(EDOM)});
  }
  filter.rows.push_back({SYS_exit_group, "exit_group", {}, "end"});
  CHECK(StatusOf(filter, [] {
          for (long number = 0; number < 100; ++number) {
            if (syscall(number, 1, 2, 3) != -1 || errno != EDOM) syscall(SYS_exit_group, 1);
            if (syscall(number, 1, 2, 4) != -1 || errno != ENOTNAM) syscall(SYS_exit_group, 2);
          }
        }) == 0);
}

TEST_CASE("the filter reaches threads that exist already", "[seccomp]") {
  const Filter filter =
      With({{SYS_getpid, "getpid", {}, "probe"}, {SYS_futex, "futex", {}, "join"}});
  const auto program = Compile(filter);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::atomic<bool> installed{false};
    std::thread thread([&] {
      while (!installed) {
      }
      syscall(SYS_getppid);
      syscall(SYS_exit_group, 1);
    });
    if (!Install(program).ok()) _exit(99);
    installed = true;
    for (;;) {
    }
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(KilledBySigsys(status));
}

TEST_CASE("a violation is logged with its number before the process ends", "[seccomp]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const base::Fd reader(ends[0]);
  base::Fd writer(ends[1]);
  const Filter filter = With(
      {{SYS_write, "write", {}, "log"}, {SYS_rt_sigreturn, "rt_sigreturn", {}, "handler"}}, kTrap);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    base::SetLogSink(writer.get(), base::LogLevel::kInfo, "probe");
    ReportViolations();
    if (!Install(Compile(filter)).ok()) _exit(99);
    syscall(SYS_getppid, 0x77);
    syscall(SYS_exit_group, 1);
  }
  writer.Reset();
  std::string text(512, '\0');
  const ssize_t got = read(reader.get(), text.data(), text.size());
  REQUIRE(got > 0);
  text.resize(static_cast<size_t>(got));
  CHECK(text.find("probe: killed by its seccomp filter: system call 110(0x77") !=
        std::string::npos);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == kViolationExitCode);
}

TEST_CASE("a table prints with its count, its conditions and its reasons", "[seccomp]") {
  const Filter filter{"probe",
                      {{SYS_write, "write", {Equals(0, 1), Without(2, 4)}, "out"},
                       {SYS_read, "read", {}, "in"},
                       {SYS_clone3, "clone3", {}, "flags unreadable", Fail(ENOSYS)}},
                      kTrap};
  const std::string text = Describe(filter);
  CHECK(text.find("probe: 2 system calls allowed; any other: SIGSYS\n") == 0);
  CHECK(text.find("   0 read" + std::string(16, ' ') + "in\n") != std::string::npos);
  CHECK(text.find("[a0 = 1, a2 without 4]  out\n") != std::string::npos);
  CHECK(text.find("[fails with errno 38]  flags unreadable\n") != std::string::npos);
  CHECK(text.find("read") < text.find("write"));
}

}  // namespace
