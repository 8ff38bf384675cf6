// Faults, signals and hostile guest code, over each platform.

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "platform/stub/image.h"
#include "platform/stub/layout.h"
#include "test/unit/platform/guest_machine.h"

GUEST_CODE(fault_load, "movq (%rdi), %rax\n syscall\n")
GUEST_CODE(fault_store, "movq %rsi, (%rdi)\n syscall\n")
GUEST_CODE(fault_jump, "jmp *%rdi\n")
GUEST_CODE(fault_int3, "nop\n int3\n syscall\n")
GUEST_CODE(fault_ud2, "ud2\n")
GUEST_CODE(fault_divide, "xorl %edx, %edx\n divl %edx\n")
GUEST_CODE(fault_nops, "nop\n nop\n nop\n syscall\n nop\n nop\n")
GUEST_CODE(fault_int80, "nop\n int $0x80\n nop\n")
GUEST_CODE(fault_hlt, "hlt\n")
GUEST_CODE(fault_syscalls, "1: syscall\n jmp 1b\n")
GUEST_CODE(fault_set_tf, "pushfq\n orq $0x100, (%rsp)\n popfq\n nop\n syscall\n")
GUEST_CODE(fault_vsyscall, "call *%rbx\n syscall\n")
GUEST_CODE(fault_set_nt_ac, "pushfq\n orq $0x44000, (%rsp)\n popfq\n 1: syscall\n jmp 1b\n")
GUEST_CODE(fault_sse,
           "movdqu (%rdi), %xmm7\n fldl (%rdi)\n movq (%rsi), %rax\n"
           "movdqu %xmm7, 16(%rdi)\n fstpl 32(%rdi)\n syscall\n")
GUEST_CODE(fault_sse_loop, "movdqu (%rdi), %xmm7\n 1: movdqu %xmm7, 16(%rdi)\n jmp 1b\n")
GUEST_CODE(fault_fill, "1: movq %rsi, (%rdi)\n addq $8, %rdi\n cmpq %rdi, %rdx\n jne 1b\n jmp .\n")

namespace {

using platform::Event;
using platform::EventKind;
using platform::PlatformKind;
using platform::Registers;
using test::Guest;
using test::kCode;
using test::kData;
using test::kPage;
using test::Machine;

Machine& EachMachine() {
  const PlatformKind kind = GENERATE(PlatformKind::kSystrap, PlatformKind::kPtrace);
  Machine& machine = Machine::Of(kind);
  UNSCOPED_INFO("platform " << machine.platform().name());
  return machine;
}

TEST_CASE("a fault carries address and access, and the instruction can be retried", "[fault]") {
  Machine& machine = EachMachine();
  constexpr uint64_t kHole = 0x600123;
  SECTION("read") {
    Guest guest(machine, fault_load());
    Registers registers = guest.Start();
    registers.rdi = kHole;
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kFault);
    CHECK(event.signal == SIGSEGV);
    CHECK(event.code == SEGV_MAPERR);
    CHECK(event.address == kHole);
    CHECK(event.access == platform::kAccessRead);
    CHECK(event.trap_number == 14);
    CHECK(registers.rip == kCode);
    CHECK(registers.orig_rax == ~uint64_t{0});
    guest.Data<uint64_t>()[0x123 / 8] = 0;
    *guest.Data<uint64_t>(kData + 0x123) = 99;
    REQUIRE(guest.space()
                .Map({.address = kHole & ~(kPage - 1),
                      .length = kPage,
                      .host_fd = machine.pool().fd(),
                      .offset = guest.data_range().start,
                      .protection = PROT_READ})
                .ok());
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == 99);
  }
  SECTION("write") {
    Guest guest(machine, fault_store());
    Registers registers = guest.Start();
    registers.rdi = kCode + 8;
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kFault);
    CHECK(event.code == SEGV_ACCERR);
    CHECK(event.address == kCode + 8);
    CHECK(event.access == platform::kAccessWrite);
  }
  SECTION("execute") {
    Guest guest(machine, fault_jump());
    Registers registers = guest.Start();
    registers.rdi = kData;
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kFault);
    CHECK(event.address == kData);
    CHECK(event.access == platform::kAccessExec);
    CHECK(registers.rip == kData);
  }
}

TEST_CASE("extended state survives faults, signals and interrupts", "[fault][fpu]") {
  Machine& machine = EachMachine();
  {
    Guest guest(machine, fault_sse());
    guest.Data<double>()[0] = 1.5;
    guest.Data<uint64_t>()[1] = 0x5555;
    Registers registers = guest.Start();
    registers.rdi = kData;
    registers.rsi = 0x600000;
    for (int i = 0; i < 3; i++) REQUIRE(guest.Switch(registers).kind == EventKind::kFault);
    registers.rsi = kData;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(guest.Data<double>()[2] == 1.5);
    CHECK(guest.Data<uint64_t>()[3] == 0x5555);
    CHECK(guest.Data<double>()[4] == 1.5);
  }
  Guest guest(machine, fault_sse_loop());
  guest.Data<uint64_t>()[0] = 0x7777;
  Registers registers = guest.Start();
  registers.rdi = kData;
  for (int i = 0; i < 50; i++) {
    std::thread interrupter([&] {
      // Once the guest is in its loop, whatever it stores comes from the register.
      while (*guest.Data<std::atomic<uint64_t>>(kData + 16) != 0x7777) std::this_thread::yield();
      guest.context().Interrupt();
    });
    REQUIRE(guest.Switch(registers).kind == EventKind::kInterrupted);
    interrupter.join();
    *guest.Data<std::atomic<uint64_t>>(kData + 16) = 0;
  }
}

TEST_CASE("an access beyond the end of a host file is SIGBUS", "[fault]") {
  Machine& machine = EachMachine();
  Guest guest(machine, fault_load());
  const int file = memfd_create("short", 0);
  REQUIRE(ftruncate(file, 100) == 0);
  REQUIRE(guest.space()
              .Map({.address = 0x700000,
                    .length = 2 * kPage,
                    .host_fd = file,
                    .protection = PROT_READ,
                    .is_private = true})
              .ok());
  close(file);
  Registers registers = guest.Start();
  registers.rdi = 0x700000 + kPage;
  const Event event = guest.Switch(registers);
  REQUIRE(event.kind == EventKind::kFault);
  CHECK(event.signal == SIGBUS);
  CHECK(event.address == 0x700000 + kPage);
}

TEST_CASE("non-canonical and privileged accesses are signals without an address", "[fault]") {
  Machine& machine = EachMachine();
  {
    Guest guest(machine, fault_load());
    Registers registers = guest.Start();
    registers.rdi = 0x8000000000000000;
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kSignal);
    CHECK(event.signal == SIGSEGV);
    CHECK(event.trap_number == 13);
  }
  Guest guest(machine, fault_hlt());
  Registers registers = guest.Start();
  const Event event = guest.Switch(registers);
  REQUIRE(event.kind == EventKind::kSignal);
  CHECK(event.signal == SIGSEGV);
}

TEST_CASE("breakpoints, illegal instructions and divisions by zero are signals", "[fault]") {
  Machine& machine = EachMachine();
  {
    Guest guest(machine, fault_int3());
    Registers registers = guest.Start();
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kSignal);
    CHECK(event.signal == SIGTRAP);
    CHECK(event.code == 0x80);
    CHECK(event.trap_number == 3);
    CHECK(registers.rip == kCode + 2);
    CHECK(guest.Switch(registers).kind == EventKind::kSyscall);
  }
  {
    Guest guest(machine, fault_ud2());
    Registers registers = guest.Start();
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kSignal);
    CHECK(event.signal == SIGILL);
    CHECK(event.address == kCode);
    CHECK(registers.rip == kCode);
  }
  Guest guest(machine, fault_divide());
  Registers registers = guest.Start();
  const Event event = guest.Switch(registers);
  REQUIRE(event.kind == EventKind::kSignal);
  CHECK(event.signal == SIGFPE);
  CHECK(event.code == FPE_INTDIV);
}

TEST_CASE("TF single-steps, over a system call too", "[fault][step]") {
  Guest guest(EachMachine(), fault_nops());
  Registers registers = guest.Start();
  for (uint64_t i = 1; i <= 3; i++) {
    registers.eflags |= 0x100;
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kSignal);
    CHECK(event.signal == SIGTRAP);
    CHECK(event.code == TRAP_TRACE);
    CHECK(registers.rip == kCode + i);
    CHECK((registers.eflags & 0x100) != 0);
  }
  registers.rax = SYS_getppid;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == SYS_getppid);
  CHECK(registers.rip == kCode + 5);
  CHECK((registers.eflags & 0x100) != 0);
  const Event event = guest.Switch(registers);
  REQUIRE(event.kind == EventKind::kSignal);
  CHECK(event.signal == SIGTRAP);
  CHECK(registers.rip == kCode + 6);
  registers.eflags &= ~uint64_t{0x100};
  registers.rip = kCode;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
}

TEST_CASE("a guest that sets TF itself gets its trap", "[fault][step]") {
  Guest guest(EachMachine(), fault_set_tf());
  Registers registers = guest.Start();
  const Event event = guest.Switch(registers);
  REQUIRE(event.kind == EventKind::kSignal);
  CHECK(event.signal == SIGTRAP);
  CHECK(event.code == TRAP_TRACE);
  registers.eflags &= ~uint64_t{0x100};
  CHECK(guest.Switch(registers).kind == EventKind::kSyscall);
}

TEST_CASE("int 0x80 is a segmentation fault at the instruction", "[fault]") {
  Guest guest(EachMachine(), fault_int80());
  Registers registers = guest.Start();
  registers.rax = 1;  // exit in the 32-bit table.
  const Event event = guest.Switch(registers);
  REQUIRE(event.kind == EventKind::kSignal);
  CHECK(event.signal == SIGSEGV);
  CHECK(registers.rip == kCode + 1);
  CHECK(registers.rax == 1);
}

TEST_CASE("a call into the host's vsyscall page is a system call or a fault", "[fault]") {
  Guest guest(EachMachine(), fault_vsyscall());
  Registers registers = guest.Start();
  registers.rbx = 0xffffffffff600400;  // time
  registers.rdi = 0;
  const Event event = guest.Switch(registers);
  if (event.kind == EventKind::kSyscall) {
    CHECK(registers.orig_rax == SYS_time);
    CHECK(registers.rip == kCode + 2);
    registers.rax = 17;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == 17);
  } else {  // A host without it.
    CHECK(event.kind == EventKind::kFault);
    CHECK(event.address == registers.rbx);
  }
}

TEST_CASE("flags that would upset the stub do not", "[hostile]") {
  Guest guest(EachMachine(), fault_set_nt_ac());
  Registers registers = guest.Start();
  for (int i = 0; i < 3; i++) {
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK((registers.eflags & 0x40000) != 0);
  }
}

TEST_CASE("a stack pointer that is garbage hurts nobody", "[hostile]") {
  Guest guest(EachMachine(), fault_syscalls());
  for (uint64_t rsp : {uint64_t{0}, uint64_t{8}, ~uint64_t{0}, uint64_t{0x8000000000000000},
                       uint64_t{STUB_TEXT}, uint64_t{STUB_COMMAND + 64}, kCode}) {
    Registers registers = guest.Start();
    registers.rsp = rsp;
    registers.rax = SYS_getppid;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.rsp == rsp);
  }
}

TEST_CASE("the stub's pages cannot be written by the guest", "[hostile]") {
  Guest guest(EachMachine(), fault_store());
  for (uint64_t address : {uint64_t{STUB_TEXT}, uint64_t{STUB_DATA}, uint64_t{STUB_COMMAND},
                           uint64_t{STUB_MAILBOX}, uint64_t{STUB_START}}) {
    Registers registers = guest.Start();
    registers.rdi = address;
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kFault);
    CHECK(event.access == platform::kAccessWrite);
    CHECK(event.address == address);
  }
}

// Each of the stub's own system call instructions, entered by guest code with arguments of its
// choice, must be as good as one of the guest's.
TEST_CASE("a guest that jumps to the stub's system calls makes none", "[hostile]") {
  Guest guest(EachMachine(), fault_syscalls());
  const auto image = platform::MakeStubImage();
  REQUIRE(image.ok());
  std::vector<unsigned char> text(image->text_bytes);
  REQUIRE(pread(image->memfd.get(), text.data(), text.size(), 0) ==
          static_cast<ssize_t>(text.size()));
  int sites = 0;
  for (uint64_t at = 0; at + 1 < text.size(); at++) {
    if (text[at] != 0x0f || text[at + 1] != 0x05) continue;
    sites++;
    for (uint64_t number : {SYS_mmap, SYS_munmap, SYS_clone, SYS_pwrite64, SYS_seccomp, SYS_prctl,
                            SYS_exit_group, SYS_close_range, SYS_read, SYS_kill}) {
      Registers registers = guest.Start();
      registers.rip = STUB_TEXT + at;
      registers.rax = number;
      registers.rdi = STUB_TEXT;
      registers.rsi = STUB_TEXT_BYTES;
      const Event event = guest.Switch(registers);
      REQUIRE(event.kind == EventKind::kSyscall);
      REQUIRE(registers.orig_rax == number);
      REQUIRE(registers.rip == STUB_TEXT + at + 2);
    }
  }
  CHECK(sites > 10);
}

// A sibling overwrites the contexts of all threads, again and again. Whatever happens to the guest,
// the sentry gets some event, or can interrupt, and other guests do not notice.
TEST_CASE("a guest that overwrites its threads' contexts fools only itself", "[hostile]") {
  Machine& machine = EachMachine();
  const uint64_t pattern =
      GENERATE(uint64_t{0}, uint64_t{1}, ~uint64_t{0}, uint64_t{STUB_CONTEXTS});
  CAPTURE(pattern);
  Guest bystander(machine, fault_syscalls());
  {
    Guest guest(machine, fault_fill());
    memcpy(machine.pool().Window(guest.code_range()).data() + 2048, fault_syscalls().data(),
           fault_syscalls().size());
    auto victim = machine.platform().NewContext().value();
    Registers calls = guest.Start();
    calls.rip = kCode + 2048;
    REQUIRE(victim->Switch(guest.space(), calls).kind == EventKind::kSyscall);
    for (int round = 0; round < 4; round++) {
      Registers registers = guest.Start();
      registers.rdi = STUB_CONTEXTS;  // The victim's, whose thread was the first.
      registers.rsi = pattern;
      registers.rdx = STUB_CONTEXTS + CONTEXT_BYTES;
      std::atomic<bool> done = false;
      std::thread interrupter([&] {
        // Also ends what the attacker did to itself.
        for (int i = 0; i < 20 && !done; i++) {
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
          guest.context().Interrupt();
        }
        if (!done) kill(guest.space().host_pid(), SIGKILL);
      });
      (void)guest.Switch(registers);
      done = true;
      interrupter.join();
      std::atomic<bool> returned = false;
      std::thread watchdog([&] {
        for (int i = 0; i < 20 && !returned; i++) {
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
          victim->Interrupt();
        }
        if (!returned) kill(guest.space().host_pid(), SIGKILL);
      });
      const Event event = victim->Switch(guest.space(), calls);
      returned = true;
      watchdog.join();
      if (event.kind == EventKind::kDead) break;
    }
    Registers registers = bystander.Start();
    registers.rax = SYS_getppid;
    REQUIRE(bystander.Switch(registers).kind == EventKind::kSyscall);
  }
  Registers registers = bystander.Start();
  registers.rax = SYS_getppid;
  REQUIRE(bystander.Switch(registers).kind == EventKind::kSyscall);
}

}  // namespace
