// Platform::syscall_entry: system calls that guest code makes by a jump.

#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "test/unit/platform/guest_machine.h"

GUEST_CODE(code_jump_to_entry, "1: movq %r9, %rcx\n jmp *%r8")
GUEST_CODE(code_loop_through_entry, "1: leaq 2f(%rip), %rcx\n jmp *%r8\n 2: jmp 1b")

namespace {

using platform::Event;
using platform::EventKind;
using platform::PlatformKind;
using platform::Registers;
using platform::SyscallPath;
using test::Guest;
using test::kCode;
using test::kData;
using test::Machine;

constexpr uint64_t kTrapFlag = 0x100;
constexpr uint64_t kResumeFlag = 0x10000;

TEST_CASE("a jump to the entry is the system call before rcx", "[platform][entry]") {
  Machine& machine = Machine::Of(PlatformKind::kSystrap);
  Guest guest(machine, code_jump_to_entry());
  Registers registers = guest.Start();
  for (uint64_t round = 1; round < 20; round++) {
    registers.rip = kCode;
    registers.r8 = machine.platform().syscall_entry();
    registers.r9 = kCode + 0x100 + round;
    registers.rax = SYS_getppid + (round << 32);
    registers.rsp = 0x1111 * round;  // Nobody touches the stack.
    registers.eflags = 0x202 | 0x8d5;
    const Registers before = registers;
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kSyscall);
    CHECK(event.path != SyscallPath::kTrap);
    CHECK(registers.orig_rax == before.rax);
    CHECK(registers.rax == static_cast<uint64_t>(-ENOSYS));
    CHECK(registers.rip == before.r9);
    CHECK(registers.rcx == before.r9);
    CHECK((registers.r11 & ~kResumeFlag) == before.eflags);
    CHECK(registers.eflags == before.eflags);
    CHECK(registers.rdi == before.rdi);
    CHECK(registers.rbx == before.rbx);
    CHECK(registers.r8 == before.r8);
    CHECK(registers.rsp == before.rsp);
  }
}

TEST_CASE("a call through the entry with a bad return address faults afterwards",
          "[platform][entry]") {
  Machine& machine = Machine::Of(PlatformKind::kSystrap);
  Guest guest(machine, code_jump_to_entry());
  Registers registers = guest.Start();
  registers.r8 = machine.platform().syscall_entry();
  SECTION("not canonical") { registers.r9 = uint64_t{1} << 63; }
  SECTION("nothing is mapped there") { registers.r9 = kData + 0x1000'0000; }
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  const Event event = guest.Switch(registers);
  CHECK((event.kind == EventKind::kSignal || event.kind == EventKind::kFault));
  CHECK(event.signal == SIGSEGV);
}

TEST_CASE("a step into the entry is the call, not a step", "[platform][entry]") {
  Machine& machine = Machine::Of(PlatformKind::kSystrap);
  Guest guest(machine, code_loop_through_entry());
  Registers registers = guest.Start();
  registers.r8 = machine.platform().syscall_entry();
  registers.rax = SYS_getppid;
  registers.eflags |= kTrapFlag;
  int calls = 0;
  int steps = 0;
  while (calls < 5 && steps < 100) {
    const Event event = guest.Switch(registers);
    if (event.kind == EventKind::kSyscall) {
      calls++;
      CHECK(registers.orig_rax == SYS_getppid);
      CHECK(registers.rip == registers.rcx);
      registers.rax = SYS_getppid;
      registers.eflags |= kTrapFlag;
      continue;
    }
    steps++;
    REQUIRE(event.kind == EventKind::kSignal);
    CHECK(event.signal == SIGTRAP);
    CHECK((registers.rip >= kCode && registers.rip < kCode + 0x1000));
  }
  CHECK(calls == 5);
}

TEST_CASE("an interrupt on the way through the entry is neither lost nor seen inside",
          "[platform][entry]") {
  Machine& machine = Machine::Of(PlatformKind::kSystrap);
  Guest guest(machine, code_loop_through_entry());
  Registers registers = guest.Start();
  registers.r8 = machine.platform().syscall_entry();
  registers.rax = SYS_getppid;
  std::atomic<bool> stop = false;
  std::atomic<int> sent = 0;
  std::thread other([&] {
    while (!stop) {
      guest.context().Interrupt();
      sent++;
      std::this_thread::sleep_for(std::chrono::microseconds(sent % 37));
    }
  });
  int interrupts = 0;
  for (int round = 0; round < 20000; round++) {
    const Event event = guest.Switch(registers);
    REQUIRE((registers.rip >= kCode && registers.rip < kCode + 0x1000));
    if (event.kind == EventKind::kInterrupted) {
      interrupts++;
      continue;
    }
    REQUIRE(event.kind == EventKind::kSyscall);
    REQUIRE(registers.orig_rax == SYS_getppid);
    registers.rax = SYS_getppid;
  }
  stop = true;
  other.join();
  CHECK(interrupts > 0);
}

}  // namespace
