// The fast path, on which calls at the stub's entry hand over without a signal: what the suite asks
// of a system call, asked of a call that comes this way. Guest code here jumps there by itself.

#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "platform/stub/layout.h"
#include "test/unit/platform/guest_machine.h"

// 0x7fff00010000 is STUB_FAST_ENTRY.
#define CALL_ENTRY(number) \
  "leaq " #number "f(%rip), %rcx\n movabsq $0x7fff00010000, %r11\n jmp *%r11\n " #number ":\n"

GUEST_CODE(code_entry_loop, "1:\n" CALL_ENTRY(2) "jmp 1b\n")
GUEST_CODE(code_entry_count,
           "1: movl $110, %eax\n incq %r12\n movq %r12, %rdi\n movq %r12, %r15\n" CALL_ENTRY(2)
           "cmpq %r12, %r15\n jne 3f\n cmpq %r12, %rdi\n jne 3f\n cmpq %r12, %rax\n je 1b\n"
           "3: ud2\n")
GUEST_CODE(code_entry_flags,
           "1: cmpq $1, %rdi\n movl $110, %eax\n" CALL_ENTRY(
               2) "pushfq\n popq %rbx\n movl $111, %eax\n" CALL_ENTRY(3) "jmp 1b\n")
GUEST_CODE(code_entry_red_zone,
           "movq $0x1234, -8(%rsp)\n movq $0x5678, -128(%rsp)\n movl $110, %eax\n" CALL_ENTRY(
               2) "movq -8(%rsp), %rdi\n movq -128(%rsp), %rsi\n movl $111, %eax\n" CALL_ENTRY(3))
GUEST_CODE(code_entry_sse, "movdqu (%rdi), %xmm7\n" CALL_ENTRY(
                               2) "movdqu %xmm7, 16(%rdi)\n" CALL_ENTRY(3) "jmp 2b\n")
GUEST_CODE(code_entry_gs, "1: movl $110, %eax\n" CALL_ENTRY(
                              2) "movq %gs:8, %rbx\n movl $111, %eax\n" CALL_ENTRY(3) "jmp 1b\n")
GUEST_CODE(code_entry_fs, "1: rdfsbase %rdi\n rdfsbase %rsi\n movl $110, %eax\n" CALL_ENTRY(
                              2) "rdfsbase %rdi\n cmpq %rdi, %rbx\n je 1b\n ud2\n")
// Answers in memory, flags in rbx, and a call that nobody but the sentry answers.
GUEST_CODE(code_entry_ids,
           "1: movl $39, %eax\n" CALL_ENTRY(2) "movq %rax, (%rdi)\n movl $186, %eax\n" CALL_ENTRY(3)
           "movq %rax, 8(%rdi)\n movl $110, %eax\n" CALL_ENTRY(4) "movq %rax, 16(%rdi)\n"
           "movl $111, %eax\n" CALL_ENTRY(5) "movq %rax, 24(%rdi)\n movl $102, %eax\n" CALL_ENTRY(6)
           "movq %rax, 32(%rdi)\n movl $107, %eax\n" CALL_ENTRY(7) "movq %rax, 40(%rdi)\n"
           "movl $104, %eax\n" CALL_ENTRY(8) "movq %rax, 48(%rdi)\n movl $108, %eax\n" CALL_ENTRY(9)
           "movq %rax, 56(%rdi)\n cmpq $1, %rsi\n movl $24, %eax\n" CALL_ENTRY(10)
           "pushfq\n popq %rbx\n movq %rax, 64(%rdi)\n movl $200, %eax\n" CALL_ENTRY(11) "jmp 1b\n")
// r12 counts calls that the stub answers; every register must stay as it is.
GUEST_CODE(code_entry_answered,
           "1: movq %r12, %rdx\n movq %r12, %rdi\n cmpq %r12, %r13\n movl $39, %eax\n" CALL_ENTRY(2)
           "jb 5f\n cmpl $77, %eax\n jne 4f\n cmpq %rdx, %r12\n jne 4f\n cmpq %rdi, %r12\n jne 4f\n"
           "movl $24, %eax\n" CALL_ENTRY(3)
           "testq %rax, %rax\n jne 4f\n cmpq %rdx, %r12\n jne 4f\n"
           "incq %r12\n jmp 1b\n 4: ud2\n 5: movl $200, %eax\n" CALL_ENTRY(6) "jmp 1b\n")
GUEST_CODE(code_entry_futex,
           "1: movl $202, %eax\n" CALL_ENTRY(2) "movq %rax, %rbx\n movl $200, %eax\n" CALL_ENTRY(
               3) "movl $202, %eax\n jmp 1b\n")
GUEST_CODE(code_store_to, "movq %rsi, (%rdi)\n syscall\n")
GUEST_CODE(code_step, "nop\n nop\n nop\n")

namespace {

using platform::Event;
using platform::EventKind;
using platform::FpuState;
using platform::PlatformKind;
using platform::Registers;
using test::Guest;
using test::kCode;
using test::kData;
using test::kPage;
using test::kStackTop;
using test::Machine;

constexpr uint64_t kArithmetic = 0x8d5;
static_assert(STUB_FAST_ENTRY == 0x7fff00010000);

Machine& TheMachine() { return Machine::Of(PlatformKind::kSystrap); }
uint64_t After(uint64_t calls) { return kCode + calls; }

// The distance from a CALL_ENTRY's first byte to its label.
constexpr uint64_t kCallBytes = 7 + 10 + 3;

TEST_CASE("general registers survive a call at the fast entry", "[platform][entry]") {
  Guest guest(TheMachine(), code_entry_loop());
  Registers registers = guest.Start();
  for (uint64_t round = 1; round < 6; round++) {
    const uint64_t b = round * 0x1111111111111111;
    registers.rax = 100 + round;
    registers.rdi = b + 1, registers.rsi = b + 2, registers.rdx = b + 3, registers.r10 = b + 4;
    registers.r8 = b + 5, registers.r9 = b + 6, registers.rbx = b + 7, registers.rbp = b + 8;
    registers.r12 = b + 9, registers.r13 = b + 10, registers.r14 = b + 11, registers.r15 = b + 12;
    registers.rsp = b & 0x7ffffffffff8;
    // Each arithmetic flag, and DF.
    registers.eflags = 0x202 | (round % 2 == 0 ? kArithmetic : 0) | (round % 3 == 0 ? 0x400u : 0);
    const Registers before = registers;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == 100 + round);
    CHECK(registers.rax == static_cast<uint64_t>(-ENOSYS));
    CHECK(registers.rip == After(kCallBytes));
    CHECK(registers.rcx == registers.rip);
    CHECK(registers.r11 == before.eflags);
    CHECK(registers.rdi == before.rdi);
    CHECK(registers.rsi == before.rsi);
    CHECK(registers.rdx == before.rdx);
    CHECK(registers.r10 == before.r10);
    CHECK(registers.r8 == before.r8);
    CHECK(registers.r9 == before.r9);
    CHECK(registers.rbx == before.rbx);
    CHECK(registers.rbp == before.rbp);
    CHECK(registers.r12 == before.r12);
    CHECK(registers.r13 == before.r13);
    CHECK(registers.r14 == before.r14);
    CHECK(registers.r15 == before.r15);
    CHECK(registers.rsp == before.rsp);
    CHECK(registers.eflags == before.eflags);
    CHECK(registers.fs_base == 0);
    CHECK(registers.gs_base == 0);
  }
}

TEST_CASE("the fast entry keeps flags and the red zone", "[platform][entry]") {
  {
    Guest guest(TheMachine(), code_entry_flags());
    Registers registers = guest.Start();
    for (uint64_t value : {uint64_t{0}, uint64_t{1}, uint64_t{2}, uint64_t{1} << 63}) {
      registers.rdi = value;
      REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
      const uint64_t flags = registers.eflags;
      REQUIRE(registers.orig_rax == 110);
      REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
      REQUIRE(registers.orig_rax == 111);
      CHECK(registers.rbx == flags);
      CHECK((flags & 0x40) == (value == 1 ? 0x40u : 0));
      CHECK((flags & 0x1) == (value == 0 ? 0x1u : 0));
      CHECK((flags & 0x800) == (value == uint64_t{1} << 63 ? 0x800u : 0));
    }
  }
  Guest guest(TheMachine(), code_entry_red_zone());
  Registers registers = guest.Start();
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.rdi == 0x1234);
  CHECK(registers.rsi == 0x5678);
}

TEST_CASE("a call at the fast entry may return to anywhere with anything", "[platform][entry]") {
  Guest guest(TheMachine(), code_entry_loop());
  Registers registers = guest.Start();
  registers.rax = 5;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  memcpy(guest.machine().pool().Window(guest.code_range()).data() + 512, code_entry_loop().data(),
         code_entry_loop().size());
  registers.rip = kCode + 512;
  registers.rcx = 77;
  registers.r11 = 88;
  registers.rsp = kStackTop - 64;
  registers.eflags = 0x202 | 0x401;
  registers.fs_base = 0x12345000;
  registers.rax = 6;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == 6);
  CHECK(registers.rip == kCode + 512 + kCallBytes);
  CHECK(registers.rsp == kStackTop - 64);
  CHECK(registers.eflags == (0x202 | 0x401));
  CHECK(registers.fs_base == 0x12345000);
  // What the entry itself changes is seen where a breakpoint stops the guest at once.
  auto* code = guest.machine().pool().Window(guest.code_range()).data() + 1024;
  code[0] = std::byte{0xcc};
  registers.rip = kCode + 1024;
  registers.rcx = 77;
  registers.r11 = 88;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSignal);
  CHECK(registers.rcx == 77);
  CHECK(registers.r11 == 88);
}

TEST_CASE("extended state at the fast entry can be read, set and reset", "[platform][entry][fpu]") {
  Guest guest(TheMachine(), code_entry_sse());
  guest.Data<uint64_t>()[0] = 7;
  Registers registers = guest.Start();
  registers.rdi = kData;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  auto state = std::make_unique<FpuState>();
  constexpr size_t kXmm7 = 160 + 7 * 16;
  guest.context().GetFpu(*state);
  CHECK(static_cast<int>(state->bytes[kXmm7]) == 7);
  CHECK((static_cast<int>(state->bytes[512]) & 2) == 2);
  state->bytes[kXmm7] = std::byte{9};
  REQUIRE(guest.context().SetFpu(*state).ok());
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(guest.Data<uint64_t>()[2] == 9);
  guest.context().ResetFpu();
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(guest.Data<uint64_t>()[2] == 0);
  // Another address space: the state moves along, and the thread left behind serves somebody else.
  guest.context().GetFpu(*state);
  state->bytes[kXmm7] = std::byte{11};
  state->bytes[512] |= std::byte{2};
  REQUIRE(guest.context().SetFpu(*state).ok());
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  Guest second(guest.machine(), code_entry_sse());
  REQUIRE(guest.context().Switch(second.space(), registers).kind == EventKind::kSyscall);
  CHECK(second.Data<uint64_t>()[2] == 11);
  auto other = guest.machine().platform().NewContext().value();
  Registers fresh = guest.Start();
  fresh.rip = registers.rip;
  fresh.rdi = kData;
  fresh.fs_base = 0x7000;
  guest.Data<uint64_t>()[2] = 1;
  REQUIRE(other->Switch(guest.space(), fresh).kind == EventKind::kSyscall);
  CHECK(guest.Data<uint64_t>()[2] == 0);
  CHECK(fresh.fs_base == 0x7000);
}

TEST_CASE("a single step from the fast entry stops after one instruction", "[platform][entry]") {
  Guest guest(TheMachine(), code_entry_loop());
  memcpy(guest.machine().pool().Window(guest.code_range()).data() + 1024, code_step().data(),
         code_step().size());
  Registers registers = guest.Start();
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  registers.rip = kCode + 1024;
  registers.r12 = 42;
  registers.eflags |= 0x100;
  Event event = guest.Switch(registers);
  REQUIRE(event.kind == EventKind::kSignal);
  CHECK(event.signal == SIGTRAP);
  CHECK(registers.rip == kCode + 1025);
  CHECK(registers.r12 == 42);
  // Into the entry, step by step: the call comes out of it.
  registers.rip = kCode;
  registers.rax = 99;
  int steps = 0;
  do {
    registers.eflags |= 0x100;
    event = guest.Switch(registers);
    steps++;
  } while (event.kind == EventKind::kSignal && steps < 10);
  REQUIRE(event.kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == 99);
  CHECK(registers.rip == kCode + kCallBytes);
  CHECK(registers.r12 == 42);
}

TEST_CASE("a guest with a gs base of its own uses the entry too", "[platform][entry]") {
  Guest guest(TheMachine(), code_entry_gs());
  guest.Data<uint64_t>()[1] = 4711;
  Registers registers = guest.Start();
  for (int round = 0; round < 3; round++) {
    registers.gs_base = kData;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == 110);
    CHECK(registers.gs_base == kData);
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == 111);
    CHECK(registers.rbx == 4711);
    CHECK(registers.gs_base == kData);
    registers.gs_base = 0;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == 110);
    CHECK(registers.gs_base == 0);
    registers.gs_base = kData;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == 111);
    CHECK(registers.rbx == 4711);
  }
}

// Runs calls of `code` under interrupts that come as fast as they can.
template <typename Check>
void UnderInterrupts(Guest& guest, Registers& registers, Check check) {
  std::atomic<bool> stop = false;
  std::thread interrupter([&] {
    uint32_t pause = 0;
    while (!stop) {
      guest.context().Interrupt();
      pause = pause * 1664525 + 1013904223;
      for (uint32_t i = 0; i < pause >> 22; i++) asm volatile("");
    }
  });
  int interrupted = 0;
  int calls = 0;
  while (calls < 20000) {
    const Event event = guest.Switch(registers);
    if (event.kind == EventKind::kInterrupted) {
      interrupted++;
    } else if (event.kind == EventKind::kSyscall) {
      calls++;
    } else {
      stop = true;
      interrupter.join();
      FAIL("kind " << static_cast<int>(event.kind) << " signal " << event.signal << " rip "
                   << registers.rip);
    }
    if (!check(event.kind == EventKind::kSyscall)) {
      stop = true;
      interrupter.join();
      FAIL("after " << calls << " calls");
    }
  }
  stop = true;
  interrupter.join();
  CHECK(interrupted > 0);
}

TEST_CASE("interrupts anywhere in the fast entry lose nothing", "[platform][entry][interrupt]") {
  Guest guest(TheMachine(), code_entry_count());
  Registers registers = guest.Start();
  uint64_t calls = 0;
  UnderInterrupts(guest, registers, [&](bool call) {
    if (!call) return true;
    calls++;
    const bool good = registers.orig_rax == 110 && registers.rdi == calls &&
                      registers.r12 == calls && registers.r15 == calls &&
                      registers.rsp == kStackTop;
    registers.rax = calls;
    return good;
  });
}

TEST_CASE("interrupts leave bases and extended state of the fast path alone",
          "[platform][entry][interrupt]") {
  {
    Guest guest(TheMachine(), code_entry_fs());
    Registers registers = guest.Start();
    uint64_t calls = 0;
    UnderInterrupts(guest, registers, [&](bool call) {
      if (!call) return registers.fs_base == registers.rbx || calls == 0;
      const bool good = calls == 0 || registers.fs_base == registers.rbx;
      calls++;
      registers.rbx = registers.fs_base = 0x10000 * (calls % 100);
      return good;
    });
  }
  Guest guest(TheMachine(), code_entry_sse());
  Registers registers = guest.Start();
  registers.rdi = kData;
  uint64_t calls = 0;
  uint64_t expected = 0;
  auto state = std::make_unique<FpuState>();
  UnderInterrupts(guest, registers, [&](bool call) {
    constexpr size_t kXmm7 = 160 + 7 * 16;
    uint64_t value = 0;
    if (!call || calls % 8 == 0) {
      guest.context().GetFpu(*state);
      memcpy(&value, &state->bytes[kXmm7], sizeof(value));
    } else {
      value = expected;
    }
    const bool good =
        value == expected && (!call || calls < 2 || guest.Data<uint64_t>()[2] == expected);
    if (call && ++calls % 16 == 0) {
      guest.context().GetFpu(*state);
      expected = calls;
      memcpy(&state->bytes[kXmm7], &expected, sizeof(expected));
      state->bytes[512] |= std::byte{2};
      if (!guest.context().SetFpu(*state).ok()) return false;
      guest.Data<uint64_t>()[2] = expected;
    }
    return good;
  });
}

TEST_CASE("the stub answers for a thread whose identity it knows", "[platform][entry][answers]") {
  Guest guest(TheMachine(), code_entry_ids());
  platform::Identity identity{.pid = 77,
                              .tid = 78,
                              .parent = 5,
                              .process_group = 6,
                              .uid = 1000,
                              .effective_uid = 0xfffffffe,
                              .gid = 1002,
                              .effective_gid = 1003};
  guest.context().SetIdentity(&identity);
  Registers registers = guest.Start();
  registers.rdi = kData;
  registers.rsi = 1;
  for (int round = 0; round < 3; round++) {
    identity.parent = 5 + round;
    guest.context().SetIdentity(&identity);
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kSyscall);
    REQUIRE(registers.orig_rax == 200);
    const uint64_t* answers = guest.Data<uint64_t>();
    CHECK(answers[0] == 77);
    CHECK(answers[1] == 78);
    CHECK(answers[2] == 5 + static_cast<uint64_t>(round));
    CHECK(answers[3] == 6);
    CHECK(answers[4] == 1000);
    CHECK(answers[5] == 0xfffffffe);
    CHECK(answers[6] == 1002);
    CHECK(answers[7] == 1003);
    CHECK(answers[8] == 0);
    CHECK((registers.rbx & kArithmetic) == 0x44);
    CHECK(registers.rdi == kData);
  }
  guest.context().SetIdentity(nullptr);
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == 39);
  CHECK(registers.rdi == kData);
}

TEST_CASE("a thread that another context takes over has its answers",
          "[platform][entry][answers]") {
  Guest guest(TheMachine(), code_entry_ids());
  const platform::Identity identity{.pid = 1, .tid = 2};
  guest.context().SetIdentity(&identity);
  Registers registers = guest.Start();
  registers.rdi = kData;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == 200);
  Guest elsewhere(guest.machine(), code_entry_ids());
  registers.rip = kCode;
  REQUIRE(guest.context().Switch(elsewhere.space(), registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == 200);
  CHECK(elsewhere.Data<uint64_t>()[1] == 2);
  auto other = guest.machine().platform().NewContext().value();
  Registers fresh = guest.Start();
  fresh.rdi = kData;
  REQUIRE(other->Switch(guest.space(), fresh).kind == EventKind::kSyscall);
  CHECK(fresh.orig_rax == 39);
}

TEST_CASE("a futex wait whose word has changed is answered, others are not",
          "[platform][entry][answers]") {
  Guest guest(TheMachine(), code_entry_futex());
  const platform::Identity identity{.pid = 1, .tid = 2};
  guest.context().SetIdentity(&identity);
  guest.Data<uint32_t>()[0] = 5;
  Registers registers = guest.Start();
  const auto call = [&](uint64_t word, uint64_t op, uint64_t value, uint64_t timeout) {
    registers.rip = kCode;
    registers.rax = SYS_futex;
    registers.rdi = word, registers.rsi = op, registers.rdx = value, registers.r10 = timeout;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.rdi == word);
    CHECK(registers.rsi == op);
    CHECK(registers.rdx == value);
    return registers.orig_rax;
  };
  CHECK(call(kData, 0, 4, 0) == 200);
  CHECK(registers.rbx == static_cast<uint64_t>(-EAGAIN));
  CHECK(call(kData, 128, 4, 0) == 200);
  CHECK(call(kData, 0, 5, 0) == SYS_futex);
  CHECK(call(kData, 0, 4, kData) == SYS_futex);
  CHECK(call(kData, 1, 4, 0) == SYS_futex);
  CHECK(call(kData, 9, 4, 0) == SYS_futex);
  CHECK(call(kData + 1, 0, 4, 0) == SYS_futex);
  CHECK(call(0x1000, 0, 4, 0) == SYS_futex);  // A fault.
  CHECK(call(uint64_t{1} << 63, 0, 4, 0) == SYS_futex);
}

TEST_CASE("interrupts of calls that the stub answers lose nothing",
          "[platform][entry][answers][interrupt]") {
  Guest guest(TheMachine(), code_entry_answered());
  const platform::Identity identity{.pid = 77, .tid = 78};
  guest.context().SetIdentity(&identity);
  Registers registers = guest.Start();
  registers.rbp = 0x4711;
  std::atomic<bool> stop = false;
  std::thread interrupter([&] {
    uint32_t pause = 0;
    while (!stop) {
      guest.context().Interrupt();
      pause = pause * 1664525 + 1013904223;
      for (uint32_t i = 0; i < pause >> 20; i++) asm volatile("");
    }
  });
  int interrupted = 0;
  int asked = 0;
  registers.r13 = ~uint64_t{0} >> 1;
  bool good = true;
  for (int i = 0; i < 20000 && good; i++) {
    const Event event = guest.Switch(registers);
    if (event.kind == EventKind::kInterrupted) {
      interrupted++;
    } else if (event.kind == EventKind::kSyscall) {
      // Caught in the stub: then it is the sentry's to answer.
      asked++;
      good = registers.orig_rax == 39 || registers.orig_rax == SYS_sched_yield;
      registers.rax = registers.orig_rax == 39 ? 77 : 0;
    } else {
      good = false;
    }
    good = good && registers.rsp == kStackTop && registers.rbp == 0x4711 &&
           registers.rip >= kCode && registers.rip < kCode + kPage;
  }
  stop = true;
  interrupter.join();
  CHECK(good);
  CHECK(interrupted > 0);
  CHECK(asked > 0);
  CHECK(registers.r12 > 0);
}

TEST_CASE("guest code cannot write what the stub answers from", "[platform][entry][answers]") {
  Guest guest(TheMachine(), code_store_to());
  Registers registers = guest.Start();
  for (const uint64_t address : {STUB_TEXT, STUB_DATA, STUB_COMMAND, STUB_ANSWERS}) {
    registers.rip = kCode;
    registers.rdi = address;
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kFault);
    CHECK(event.access == platform::kAccessWrite);
    CHECK(event.address == address);
  }
}

}  // namespace
