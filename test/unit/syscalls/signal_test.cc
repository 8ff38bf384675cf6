#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <thread>

#include "catch2/catch.hpp"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/signal/signal_delivery.h"
#include "sentry/signal/signal_frame.h"
#include "test/support/test_task.h"

namespace {

using sentry::SignalBit;
using sentry::SignalInfo;
using test::TestTask;

using Action = std::array<uint64_t, 4>;  // handler, flags, restorer, mask
constexpr uint64_t kHandler = 0x401000;
constexpr uint64_t kRestorer = 0x402000;
constexpr uint64_t kStackTop = TestTask::kArea + TestTask::kAreaBytes - 4096;

void SetAction(TestTask& task, int signal, uint64_t handler, uint64_t flags = 0,
               uint64_t mask = 0) {
  task.Poke(TestTask::kPage, Action{handler, flags | sentry::kActionRestorer, kRestorer, mask});
  REQUIRE(task.Call(SYS_rt_sigaction, signal, TestTask::kPage, 0, 8) == 0);
}

void Block(TestTask& task, sentry::SignalSet set) {
  task.Poke(TestTask::kPage, set);
  REQUIRE(task.Call(SYS_rt_sigprocmask, SIG_BLOCK, TestTask::kPage, 0, 8) == 0);
}

TEST_CASE("rt_sigaction returns what was set, without unknown flags", "[syscalls][signal]") {
  TestTask task;
  SetAction(task, SIGUSR1, kHandler, SA_RESTART | (uint64_t{1} << 20), ~uint64_t{0});
  REQUIRE(task.Call(SYS_rt_sigaction, SIGUSR1, 0, TestTask::kPage, 8) == 0);
  const auto action = task.Peek<Action>(TestTask::kPage);
  CHECK(action[0] == kHandler);
  CHECK(action[1] == (SA_RESTART | sentry::kActionRestorer));
  CHECK(action[3] == ~sentry::kUnblockable);
}

TEST_CASE("signal calls refuse another size of the mask", "[syscalls][signal]") {
  TestTask task;
  CHECK(task.Call(SYS_rt_sigaction, SIGUSR1, 0, 0, 4) == -EINVAL);
  CHECK(task.Call(SYS_rt_sigprocmask, SIG_BLOCK, 0, 0, 4) == -EINVAL);
  CHECK(task.Call(SYS_rt_sigtimedwait, TestTask::kPage, 0, 0, 4) == -EINVAL);
  CHECK(task.Call(SYS_rt_sigsuspend, TestTask::kPage, 4) == -EINVAL);
  CHECK(task.Call(SYS_rt_sigpending, TestTask::kPage, 16) == -EINVAL);
}

TEST_CASE("a fault at every byte of rt_sigaction's structures is EFAULT",
          "[syscalls][signal][efault]") {
  const uint64_t short_by = GENERATE(range(1, 33));
  TestTask task;
  CHECK(task.Call(SYS_rt_sigaction, SIGUSR1, TestTask::kPageEnd - 32 + short_by, 0, 8) == -EFAULT);
  CHECK(task.Call(SYS_rt_sigaction, SIGUSR1, 0, TestTask::kPageEnd - 32 + short_by, 8) == -EFAULT);
}

TEST_CASE("pending signals are those that are blocked", "[syscalls][signal]") {
  TestTask task;
  Block(task, SignalBit(SIGUSR1) | SignalBit(SIGRTMIN));
  REQUIRE(task.Call(SYS_kill, 2, SIGUSR1) == 0);
  REQUIRE(task.Call(SYS_tgkill, 2, 2, SIGRTMIN) == 0);
  REQUIRE(task.Call(SYS_rt_sigpending, TestTask::kPage, 8) == 0);
  CHECK(task.Peek<uint64_t>(TestTask::kPage) == (SignalBit(SIGUSR1) | SignalBit(SIGRTMIN)));
  CHECK_FALSE(task.task().IsInterrupted());
}

TEST_CASE("sigtimedwait takes a pending signal and its details", "[syscalls][signal]") {
  TestTask task;
  Block(task, SignalBit(SIGUSR1));
  REQUIRE(task.Call(SYS_kill, 2, SIGUSR1) == 0);
  task.Poke(TestTask::kPage, SignalBit(SIGUSR1));
  CHECK(task.Call(SYS_rt_sigtimedwait, TestTask::kPage, TestTask::kPage + 64, 0, 8) == SIGUSR1);
  CHECK(task.Peek<int>(TestTask::kPage + 64) == SIGUSR1);
  CHECK(task.Peek<int>(TestTask::kPage + 72) == SI_USER);
  CHECK(task.Peek<int>(TestTask::kPage + 80) == 2);
  task.Poke(TestTask::kPage + 8, std::array<int64_t, 2>{0, 0});
  CHECK(task.Call(SYS_rt_sigtimedwait, TestTask::kPage, 0, TestTask::kPage + 8, 8) == -EAGAIN);
  task.Poke(TestTask::kPage + 8, std::array<int64_t, 2>{0, 1'000'000'000});
  CHECK(task.Call(SYS_rt_sigtimedwait, TestTask::kPage, 0, TestTask::kPage + 8, 8) == -EINVAL);
}

TEST_CASE("sigtimedwait is woken by a signal that comes later", "[syscalls][signal]") {
  TestTask task;
  Block(task, SignalBit(SIGUSR1));
  task.Poke(TestTask::kPage, SignalBit(SIGUSR1));
  std::thread sender([&task] {
    while (task.task().StateLetter() != 'S') std::this_thread::yield();
    CHECK(task.task().SendSignal(SignalInfo::FromUser(SIGUSR1, 1, 0)).ok());
  });
  CHECK(task.Call(SYS_rt_sigtimedwait, TestTask::kPage, 0, 0, 8) == SIGUSR1);
  sender.join();
}

TEST_CASE("kill distinguishes its targets", "[syscalls][signal]") {
  TestTask task;
  CHECK(task.Call(SYS_kill, 2, 65) == -EINVAL);
  CHECK(task.Call(SYS_kill, 77, 0) == -ESRCH);
  CHECK(task.Call(SYS_kill, -77, 0) == -ESRCH);
  CHECK(task.Call(SYS_kill, INT32_MIN, 0) == -ESRCH);
  CHECK(task.Call(SYS_kill, -1, 0) == -ESRCH);  // Neither itself nor init.
  CHECK(task.Call(SYS_kill, 0, 0) == 0);
  const sentry::TaskRef child = task.MakeChild();
  CHECK(task.Call(SYS_kill, -1, 0) == 0);
  CHECK(task.Call(SYS_tkill, 0, 0) == -EINVAL);
  CHECK(task.Call(SYS_tgkill, 2, 3, 0) == -ESRCH);
  CHECK(task.Call(SYS_tgkill, 3, 3, 0) == 0);
}

TEST_CASE("another user's process is out of reach, its own session's SIGCONT excepted",
          "[syscalls][signal]") {
  TestTask task;
  const sentry::TaskRef child = task.MakeChild();
  REQUIRE(task.CallAs(*child, SYS_setresuid, 1000, 1000, 1000) == 0);
  CHECK(task.CallAs(*child, SYS_kill, 2, SIGTERM) == -EPERM);
  CHECK(task.CallAs(*child, SYS_kill, 2, SIGCONT) == 0);
  CHECK(task.CallAs(*child, SYS_kill, 1, SIGCONT) == -EPERM);
  CHECK(task.Call(SYS_kill, 3, 0) == 0);
}

TEST_CASE("init ignores what it does not handle, outsiders' SIGKILL excepted",
          "[syscalls][signal]") {
  TestTask task;
  const auto init = task.kernel().pids().Init();
  CHECK(task.Call(SYS_kill, 1, SIGKILL) == 0);
  CHECK(task.Call(SYS_kill, 1, SIGTERM) == 0);
  CHECK_FALSE(init->IsExiting());
  CHECK(task.kernel().SignalProcess(1, SIGTERM).ok());
  CHECK_FALSE(init->IsExiting());
  CHECK(task.kernel().SignalProcess(1, SIGKILL).ok());
  CHECK(init->IsExiting());
}

TEST_CASE("RLIMIT_SIGPENDING refuses queued values, not kill", "[syscalls][signal][limits]") {
  TestTask task;
  Block(task, SignalBit(SIGRTMIN) | SignalBit(SIGUSR1));
  task.task().group().limits().Set(RLIMIT_SIGPENDING, {1, 1});
  std::array<int32_t, 32> info{};
  info[2] = SI_QUEUE;
  task.Poke(TestTask::kPage, info);
  CHECK(task.Call(SYS_rt_sigqueueinfo, 2, SIGRTMIN, TestTask::kPage) == 0);
  CHECK(task.Call(SYS_rt_sigqueueinfo, 2, SIGRTMIN, TestTask::kPage) == -EAGAIN);
  CHECK(task.Call(SYS_kill, 2, SIGUSR1) == 0);
}

TEST_CASE("a handler's frame holds the registers and rt_sigreturn brings them back",
          "[syscalls][signal][frame]") {
  TestTask task;
  SetAction(task, SIGUSR1, kHandler, SA_SIGINFO, SignalBit(SIGUSR2));
  platform::Registers& registers = task.task().registers();
  registers.rip = 0x400123;
  registers.rsp = kStackTop;
  registers.rbx = 0x1111;
  registers.rax = 5;
  registers.orig_rax = ~uint64_t{0};
  registers.eflags = 0x246 | 0x400;
  REQUIRE(task.Call(SYS_kill, 2, SIGUSR1) == 0);
  REQUIRE(task.task().PrepareReturnToGuest());
  CHECK(registers.rip == kHandler);
  CHECK(registers.rdi == SIGUSR1);
  CHECK(registers.rsp % 16 == 8);
  CHECK(registers.rsp < kStackTop - 128);
  CHECK((registers.eflags & 0x400) == 0);
  CHECK(task.Peek<uint64_t>(registers.rsp) == kRestorer);
  CHECK(task.Peek<int>(registers.rsi) == SIGUSR1);
  CHECK(task.Peek<uint64_t>(registers.rdx + 40 + 128) == 0x400123);  // gregs[REG_RIP]
  CHECK(task.task().signal_mask() == (SignalBit(SIGUSR1) | SignalBit(SIGUSR2)));
  registers.rsp += 8;  // The handler's ret.
  registers.rbx = 0;
  REQUIRE(task.Call(SYS_rt_sigreturn) == 0);
  CHECK(registers.rip == 0x400123);
  CHECK(registers.rsp == kStackTop);
  CHECK(registers.rbx == 0x1111);
  CHECK(registers.rax == 5);
  CHECK((registers.eflags & 0x400) != 0);
  CHECK(task.task().signal_mask() == 0);
}

TEST_CASE("a frame that cannot be written ends the process with SIGSEGV",
          "[syscalls][signal][frame]") {
  TestTask task;
  SetAction(task, SIGUSR1, kHandler);
  task.task().registers().rsp = 0x100;
  REQUIRE(task.Call(SYS_kill, 2, SIGUSR1) == 0);
  CHECK_FALSE(task.task().PrepareReturnToGuest());
  CHECK(task.task().group().IsExiting());
}

TEST_CASE("an interrupted call restarts or ends by its code and SA_RESTART",
          "[syscalls][signal][restart]") {
  struct Case {
    int code;
    uint64_t flags;
    bool restarts;
  };
  const Case c = GENERATE(Case{512, 0, false}, Case{512, SA_RESTART, true}, Case{513, 0, true},
                          Case{514, SA_RESTART, false}, Case{516, SA_RESTART, false});
  CAPTURE(c.code, c.flags);
  TestTask task;
  SetAction(task, SIGUSR1, kHandler, c.flags);
  platform::Registers& registers = task.task().registers();
  registers.rip = 0x400102;
  registers.rsp = kStackTop;
  registers.orig_rax = SYS_read;
  task.task().FinishSyscallForTest(-c.code);
  REQUIRE(task.Call(SYS_kill, 2, SIGUSR1) == 0);
  REQUIRE(task.task().PrepareReturnToGuest());
  const uint64_t context = registers.rdx + 40;
  CHECK(task.Peek<uint64_t>(context + 128) == (c.restarts ? 0x400100u : 0x400102u));
  CHECK(task.Peek<int64_t>(context + 104) == (c.restarts ? SYS_read : -EINTR));
}

TEST_CASE("a forced signal that is blocked becomes fatal", "[syscalls][signal][fault]") {
  TestTask task;
  SetAction(task, SIGSEGV, kHandler);
  Block(task, SignalBit(SIGSEGV));
  SignalInfo info;
  info.signal = SIGSEGV;
  info.code = SEGV_MAPERR;
  task.task().ForceSignal(info);
  CHECK_FALSE(task.task().PrepareReturnToGuest());
}

TEST_CASE("sigaltstack checks size and flags, and reports what is set", "[syscalls][signal]") {
  TestTask task;
  task.task().registers().rsp = kStackTop;
  task.Poke(TestTask::kPage, std::array<uint64_t, 3>{TestTask::kArea, 0, 2047});
  CHECK(task.Call(SYS_sigaltstack, TestTask::kPage, 0) == -ENOMEM);
  task.Poke(TestTask::kPage, std::array<uint64_t, 3>{TestTask::kArea, 8, 8192});
  CHECK(task.Call(SYS_sigaltstack, TestTask::kPage, 0) == -EINVAL);
  task.Poke(TestTask::kPage, std::array<uint64_t, 3>{TestTask::kArea, 0, 8192});
  CHECK(task.Call(SYS_sigaltstack, TestTask::kPage, 0) == 0);
  CHECK(task.Call(SYS_sigaltstack, 0, TestTask::kPage) == 0);
  CHECK(task.Peek<std::array<uint64_t, 3>>(TestTask::kPage) ==
        std::array<uint64_t, 3>{TestTask::kArea, 0, 8192});
  task.task().registers().rsp = TestTask::kArea + 4096;
  CHECK(task.Call(SYS_sigaltstack, TestTask::kPage, 0) == -EPERM);
}

}  // namespace
