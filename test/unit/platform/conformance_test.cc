// What every platform must do, run over each of them. Faults and signals of guest code are in
// conformance_fault_test.cc.

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>
#include <vector>

#include "test/unit/platform/guest_machine.h"

GUEST_CODE(code_syscall_loop, "1: syscall\n jmp 1b")
GUEST_CODE(code_spin, "1: jmp 1b")
GUEST_CODE(code_spin_then_call, "1: cmpl $0, (%rdi)\n je 1b\n syscall\n 2: jmp 2b")
GUEST_CODE(code_count, "1: incq (%rdi)\n jmp 1b")
GUEST_CODE(code_bases,
           "movq %fs:0, %rax\n movq %gs:8, %rbx\n syscall\n"
           "movq %fs:0, %rax\n movq %gs:8, %rbx\n syscall\n")
GUEST_CODE(code_own_bases, "wrfsbase %rdi\n wrgsbase %rsi\n syscall\n rdfsbase %rax\n syscall\n")
GUEST_CODE(code_cpuid, "xorl %eax, %eax\n xorl %ecx, %ecx\n cpuid\n syscall\n rdtsc\n syscall\n")
GUEST_CODE(code_sse, "movdqu (%rdi), %xmm7\n 1: syscall\n movdqu %xmm7, 16(%rdi)\n jmp 1b")
GUEST_CODE(code_x87, "fldl (%rdi)\n syscall\n fstpl 8(%rdi)\n syscall\n")
GUEST_CODE(code_avx, "vmovdqu (%rdi), %ymm3\n syscall\n vmovdqu %ymm3, 64(%rdi)\n syscall\n")
GUEST_CODE(code_avx512,
           "vmovdqu64 (%rdi), %zmm30\n movl $0x1234, %eax\n kmovd %eax, %k3\n movl $39, %eax\n"
           "syscall\n vmovdqu64 %zmm30, 64(%rdi)\n kmovd %k3, %eax\n syscall\n")
GUEST_CODE(code_mxcsr, "stmxcsr (%rdi)\n fnstcw 4(%rdi)\n syscall\n")
GUEST_CODE(code_load, "movq (%rdi), %rax\n syscall\n")
GUEST_CODE(code_store, "movq %rsi, (%rdi)\n syscall\n")

namespace {

using platform::Context;
using platform::Event;
using platform::EventKind;
using platform::FpuState;
using platform::PlatformKind;
using platform::Registers;
using test::Guest;
using test::kCode;
using test::kData;
using test::kDataBytes;
using test::kPage;
using test::kStackTop;
using test::Machine;

constexpr uint64_t kGetppid = SYS_getppid;

const cpu_set_t& InitialCpus() {
  static const cpu_set_t cpus = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof(set), &set);
    return set;
  }();
  return cpus;
}

Machine& EachMachine() {
  InitialCpus();  // Before anybody changes them.

  const PlatformKind kind = GENERATE(PlatformKind::kSystrap, PlatformKind::kPtrace);
  Machine& machine = Machine::Of(kind);
  UNSCOPED_INFO("platform " << machine.platform().name());
  return machine;
}

TEST_CASE("general registers survive a system call and reach the guest", "[platform]") {
  Guest guest(EachMachine(), code_syscall_loop());
  Registers registers = guest.Start();
  registers.rax = kGetppid;
  for (uint64_t round = 1; round < 4; round++) {
    const uint64_t b = round * 0x1111111111111111;
    registers.rdi = b + 1, registers.rsi = b + 2, registers.rdx = b + 3, registers.r10 = b + 4;
    registers.r8 = b + 5, registers.r9 = b + 6, registers.rbx = b + 7, registers.rbp = b + 8;
    registers.r12 = b + 9, registers.r13 = b + 10, registers.r14 = b + 11, registers.r15 = b + 12;
    registers.rsp = b & 0x7ffffffffff8;
    registers.eflags = 0x202 | 0x8d5;
    const Registers before = registers;
    const Event event = guest.Switch(registers);
    REQUIRE(event.kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == kGetppid);
    CHECK(registers.rax == static_cast<uint64_t>(-ENOSYS));
    CHECK(registers.rip == kCode + 2);
    CHECK(registers.rcx == kCode + 2);
    CHECK((registers.r11 & ~uint64_t{0x10000}) == before.eflags);
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
    registers.rax = kGetppid;
  }
}

TEST_CASE("privileged flags and segments of the caller are ignored", "[platform]") {
  Guest guest(EachMachine(), code_syscall_loop());
  Registers registers = guest.Start();
  registers.eflags = ~uint64_t{0} & ~uint64_t{0x100};  // All but TF.
  registers.cs = 0x10;
  registers.ss = 0;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK((registers.eflags & 0x3000) == 0);  // IOPL
  CHECK(registers.cs == 0x33);
}

TEST_CASE("every system call number traps, whatever the host would do with it", "[platform]") {
  Guest guest(EachMachine(), code_syscall_loop());
  Registers registers = guest.Start();
  for (uint64_t number : {uint64_t{0}, uint64_t{SYS_futex}, uint64_t{SYS_rt_sigreturn},
                          uint64_t{SYS_sched_yield}, uint64_t{SYS_exit_group}, uint64_t{0x40000001},
                          uint64_t{100000}, ~uint64_t{0}, uint64_t{0xffffffff00000027}}) {
    registers.rax = number;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == number);
    CHECK(registers.rip == kCode + 2);
  }
}

TEST_CASE("fs and gs bases are set and reported", "[platform]") {
  Guest guest(EachMachine(), code_bases());
  guest.Data<uint64_t>()[0] = 11;
  guest.Data<uint64_t>()[1] = 22;
  guest.Data<uint64_t>()[2] = 33;
  guest.Data<uint64_t>()[3] = 44;
  Registers registers = guest.Start();
  registers.fs_base = kData;
  registers.gs_base = kData;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == 11);
  CHECK(registers.rbx == 22);
  CHECK(registers.fs_base == kData);
  registers.fs_base = kData + 16;
  registers.gs_base = kData + 16;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == 33);
  CHECK(registers.rbx == 44);
  CHECK(registers.gs_base == kData + 16);
}

TEST_CASE("bases that the guest sets by itself are reported and kept", "[platform]") {
  Guest guest(EachMachine(), code_own_bases());
  Registers registers = guest.Start();
  registers.rdi = 0x123456789000;
  registers.rsi = 0x7000;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.fs_base == 0x123456789000);
  CHECK(registers.gs_base == 0x7000);
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == 0x123456789000);
}

TEST_CASE("cpuid and rdtsc work", "[platform]") {
  Guest guest(EachMachine(), code_cpuid());
  Registers registers = guest.Start();
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax >= 1);
  CHECK(registers.rbx != 0);
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK((registers.orig_rax | registers.rdx) != 0);
}

TEST_CASE("a new context has Linux's initial extended state", "[platform][fpu]") {
  Guest guest(EachMachine(), code_mxcsr());
  Registers registers = guest.Start();
  registers.rdi = kData;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(guest.Data<uint32_t>()[0] == 0x1f80);
  CHECK((guest.Data<uint32_t>()[1] & 0xffff) == 0x37f);
}

TEST_CASE("SSE and x87 state survive a Switch", "[platform][fpu]") {
  Machine& machine = EachMachine();
  {
    Guest guest(machine, code_sse());
    guest.Data<uint64_t>()[0] = 0x0123456789abcdef;
    guest.Data<uint64_t>()[1] = 0xfedcba9876543210;
    Registers registers = guest.Start();
    registers.rdi = kData;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(guest.Data<uint64_t>()[2] == 0x0123456789abcdef);
    CHECK(guest.Data<uint64_t>()[3] == 0xfedcba9876543210);
  }
  Guest guest(machine, code_x87());
  guest.Data<double>()[0] = 3.25;
  Registers registers = guest.Start();
  registers.rdi = kData;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(guest.Data<double>()[1] == 3.25);
}

TEST_CASE("AVX and AVX-512 state survive a Switch, where the CPU has it", "[platform][fpu]") {
  Machine& machine = EachMachine();
  if (__builtin_cpu_supports("avx")) {
    Guest guest(machine, code_avx());
    for (uint64_t i = 0; i < 4; i++) guest.Data<uint64_t>()[i] = 0x1111 * (i + 1);
    Registers registers = guest.Start();
    registers.rdi = kData;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(memcmp(guest.Data<uint64_t>(), guest.Data<uint64_t>() + 8, 32) == 0);
  }
  if (__builtin_cpu_supports("avx512bw")) {
    Guest guest(machine, code_avx512());
    for (uint64_t i = 0; i < 8; i++) guest.Data<uint64_t>()[i] = 0x1111 * (i + 1);
    Registers registers = guest.Start();
    registers.rdi = kData;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(memcmp(guest.Data<uint64_t>(), guest.Data<uint64_t>() + 8, 64) == 0);
    CHECK(registers.orig_rax == 0x1234);
  }
}

TEST_CASE("extended state can be read, set and reset", "[platform][fpu]") {
  Guest guest(EachMachine(), code_sse());
  guest.Data<uint64_t>()[0] = 7;
  Registers registers = guest.Start();
  registers.rdi = kData;
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  auto state = std::make_unique<FpuState>();
  constexpr size_t kXmm7 = 160 + 7 * 16;
  guest.context().GetFpu(*state);
  CHECK(static_cast<int>(state->bytes[kXmm7]) == 7);
  CHECK((static_cast<int>(state->bytes[512]) & 2) == 2);  // SSE is in use.

  state->bytes[kXmm7] = std::byte{9};
  REQUIRE(guest.context().SetFpu(*state).ok());
  auto again = std::make_unique<FpuState>();
  guest.context().GetFpu(*again);
  CHECK(static_cast<int>(again->bytes[kXmm7]) == 9);
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(guest.Data<uint64_t>()[2] == 9);

  state->bytes[520] = std::byte{1};  // A compacted image.
  CHECK(guest.context().SetFpu(*state).error() == EINVAL);
  state->bytes[520] = std::byte{0};
  state->bytes[519] = std::byte{0x40};  // A component that no CPU has.
  CHECK(guest.context().SetFpu(*state).error() == EINVAL);
  state->bytes[519] = std::byte{0};
  state->bytes[27] = std::byte{0xff};  // Reserved bits of MXCSR.
  CHECK(guest.context().SetFpu(*state).error() == EINVAL);
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(guest.Data<uint64_t>()[2] == 9);

  guest.context().ResetFpu();
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(guest.Data<uint64_t>()[2] == 0);
}

TEST_CASE("a context moves to another address space with its extended state", "[platform][fpu]") {
  Machine& machine = EachMachine();
  Guest first(machine, code_sse());
  Guest second(machine, code_sse());
  first.Data<uint64_t>()[0] = 0xabcd;
  Registers registers = first.Start();
  registers.rdi = kData;
  REQUIRE(first.Switch(registers).kind == EventKind::kSyscall);
  REQUIRE(first.context().Switch(second.space(), registers).kind == EventKind::kSyscall);
  CHECK(second.Data<uint64_t>()[2] == 0xabcd);
  // The thread it left behind serves another context, which sees nothing of it.
  auto other = machine.platform().NewContext().value();
  Registers fresh = first.Start();
  fresh.rip = registers.rip;
  fresh.rdi = kData;
  first.Data<uint64_t>()[2] = 1;
  REQUIRE(other->Switch(first.space(), fresh).kind == EventKind::kSyscall);
  CHECK(first.Data<uint64_t>()[2] == 0);
}

TEST_CASE("two contexts run in one address space at the same time", "[platform]") {
  Guest guest(EachMachine(), code_spin_then_call());
  std::thread waiter([&] {
    auto context = guest.machine().platform().NewContext().value();
    Registers registers = guest.Start();
    registers.rax = 1234;
    registers.rdi = kData;
    const Event event = context->Switch(guest.space(), registers);
    guest.Data<std::atomic<uint32_t>>(kData + 8)->store(
        event.kind == EventKind::kSyscall && registers.orig_rax == 1234 ? 1 : 2);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  Registers registers = guest.Start();
  memcpy(guest.machine().pool().Window(guest.code_range()).data() + 1024, code_store().data(),
         code_store().size());
  registers.rip = kCode + 1024;
  registers.rdi = kData;
  registers.rsi = 1;
  CHECK(guest.Switch(registers).kind == EventKind::kSyscall);
  waiter.join();
  CHECK(guest.Data<std::atomic<uint32_t>>(kData + 8)->load() == 1);
}

TEST_CASE("an interrupt ends a Switch, before or during it", "[platform][interrupt]") {
  Guest guest(EachMachine(), code_spin());
  Registers registers = guest.Start();
  guest.context().Interrupt();
  CHECK(guest.Switch(registers).kind == EventKind::kInterrupted);
  for (int round = 0; round < 20; round++) {
    std::thread interrupter([&] {
      std::this_thread::sleep_for(std::chrono::microseconds(50 * round));
      guest.context().Interrupt();
    });
    const auto start = std::chrono::steady_clock::now();
    CHECK(guest.Switch(registers).kind == EventKind::kInterrupted);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(1));
    CHECK(registers.rip == kCode);
    interrupter.join();
  }
}

TEST_CASE("no interrupt is lost and none is invented under load", "[platform][interrupt]") {
  Guest guest(EachMachine(), code_syscall_loop());
  std::atomic<bool> stop = false;
  std::atomic<int> sent = 0;
  std::thread interrupter([&] {
    while (!stop) {
      sent++;
      guest.context().Interrupt();
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  });
  Registers registers = guest.Start();
  int seen = 0;
  for (int i = 0; i < 3000; i++) {
    registers.rax = kGetppid;
    const Event event = guest.Switch(registers);
    if (event.kind == EventKind::kInterrupted) {
      seen++;
    } else {
      REQUIRE(event.kind == EventKind::kSyscall);
      REQUIRE(registers.orig_rax == kGetppid);
    }
  }
  stop = true;
  interrupter.join();
  CHECK(seen > 0);
  CHECK(seen <= sent);
  guest.context().Interrupt();
  CHECK(guest.Switch(registers).kind == EventKind::kInterrupted);
  registers.rax = kGetppid;
  CHECK(guest.Switch(registers).kind == EventKind::kSyscall);
}

// The interrupt may arrive when the guest's turn has begun and its thread has not got there yet.
TEST_CASE("an interrupt leaves new bases of a thread as they were set", "[platform][interrupt]") {
  Guest guest(EachMachine(), code_syscall_loop());
  constexpr int kRounds = 400;
  int interrupted = 0;
  for (int round = 0; round < kRounds; round++) {
    auto context = guest.machine().platform().NewContext().value();
    REQUIRE(context->Prepare(guest.space()).ok());
    std::atomic<bool> go = false;
    std::thread interrupter([&] {
      while (!go) {
      }
      for (int i = 0; i < round % 4 * 1000; i++) asm volatile("");
      context->Interrupt();
    });
    Registers registers = guest.Start();
    registers.rax = kGetppid;
    registers.fs_base = 0x10000 + static_cast<uint64_t>(round) * 0x1000;
    registers.gs_base = 0x20000 + static_cast<uint64_t>(round) * 0x1000;
    go = true;
    for (int i = 0; i < 2; i++) {
      const Registers before = registers;
      const Event event = context->Switch(guest.space(), registers);
      interrupted += event.kind == EventKind::kInterrupted ? 1 : 0;
      REQUIRE(registers.fs_base == before.fs_base);
      REQUIRE(registers.gs_base == before.gs_base);
      registers.rax = kGetppid;
    }
    interrupter.join();
  }
  CHECK(interrupted > 0);
}

double CpuSeconds(clockid_t clock) {
  timespec time{};
  REQUIRE(clock_gettime(clock, &time) == 0);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

TEST_CASE("waiting costs no CPU, on either side", "[platform][idle]") {
  Machine& machine = EachMachine();
  {
    // The sentry is busy with something else for a while: the stub sleeps.
    Guest guest(machine, code_syscall_loop());
    Registers registers = guest.Start();
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    clockid_t clock{};
    REQUIRE(clock_getcpuclockid(guest.space().host_pid(), &clock) == 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const double before = CpuSeconds(clock);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    CHECK(CpuSeconds(clock) - before < 0.001);
  }
  // The guest computes: the sentry sleeps.
  Guest guest(machine, code_spin());
  Registers registers = guest.Start();
  std::thread interrupter([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    guest.context().Interrupt();
  });
  const double before = CpuSeconds(CLOCK_THREAD_CPUTIME_ID);
  CHECK(guest.Switch(registers).kind == EventKind::kInterrupted);
  CHECK(CpuSeconds(CLOCK_THREAD_CPUTIME_ID) - before < 0.01);
  interrupter.join();
}

TEST_CASE("the death of the host process is noticed", "[platform][death]") {
  Guest guest(EachMachine(), code_spin());
  Registers registers = guest.Start();
  guest.context().Interrupt();
  CHECK(guest.Switch(registers).kind == EventKind::kInterrupted);
  // What the host's OOM killer would do.
  std::thread killer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    REQUIRE(kill(guest.space().host_pid(), SIGKILL) == 0);
  });
  CHECK(guest.Switch(registers).kind == EventKind::kDead);
  killer.join();
  CHECK(guest.Switch(registers).kind == EventKind::kDead);
  CHECK(guest.space().Unmap(kCode, kPage).error() == ESRCH);
  CHECK(guest.space()
            .Map({.address = kData,
                  .length = kPage,
                  .host_fd = guest.machine().pool().fd(),
                  .offset = 0,
                  .protection = PROT_READ})
            .error() == ESRCH);
}

TEST_CASE("death between two Switches is noticed", "[platform][death]") {
  Guest guest(EachMachine(), code_syscall_loop());
  Registers registers = guest.Start();
  REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
  REQUIRE(kill(guest.space().host_pid(), SIGKILL) == 0);
  CHECK(guest.Switch(registers).kind == EventKind::kDead);
}

TEST_CASE("mappings over the stub or outside the limits are refused", "[platform][memory]") {
  Machine& machine = EachMachine();
  Guest guest(machine, code_load());
  const uint64_t min = machine.platform().user_address_min();
  const uint64_t max = machine.platform().user_address_max();
  platform::Mapping mapping = {.address = max,
                               .length = kPage,
                               .host_fd = machine.pool().fd(),
                               .offset = guest.data_range().start,
                               .protection = PROT_READ};
  for (uint64_t address : {max, max + (1 << 16), max - kPage, min - kPage, uint64_t{0},
                           ~uint64_t{0} & ~(kPage - 1), uint64_t{0x7fffffffe000}}) {
    mapping.address = address;
    mapping.length = address == max - kPage ? 2 * kPage : kPage;
    CHECK(guest.space().Map(mapping).error() == EINVAL);
    CHECK(guest.space().Unmap(mapping.address, mapping.length).error() == EINVAL);
    CHECK(guest.space().Protect(mapping.address, mapping.length, PROT_READ).error() == EINVAL);
  }
  mapping.address = min;
  mapping.length = ~uint64_t{0} & ~(kPage - 1);
  CHECK(guest.space().Map(mapping).error() == EINVAL);
  mapping.length = kPage + 1;
  CHECK(guest.space().Map(mapping).error() == EINVAL);
  // The last page below and the first page are fine.
  mapping.length = kPage;
  for (uint64_t address : {min, max - kPage}) {
    mapping.address = address;
    REQUIRE(guest.space().Map(mapping).ok());
    guest.Data<uint64_t>()[0] = 0x77;
    Registers registers = guest.Start();
    registers.rdi = address;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == 0x77);
    CHECK(guest.space().Unmap(address, kPage).ok());
  }
}

TEST_CASE("mapping a descriptor that the host refuses is the host's error", "[platform][memory]") {
  Guest guest(EachMachine(), code_load());
  std::array<int, 2> ends{};
  REQUIRE(pipe(ends.data()) == 0);
  CHECK(guest.space()
            .Map({.address = kData, .length = kPage, .host_fd = ends[0], .protection = PROT_READ})
            .error() == ENODEV);
  close(ends[0]);
  close(ends[1]);
  CHECK(guest.space().Protect(kData, kDataBytes, PROT_READ).ok());
}

TEST_CASE("unmap and protect bind the threads that run", "[platform][memory]") {
  Guest guest(EachMachine(), code_count());
  Registers registers = guest.Start();
  registers.rdi = kData;
  Event event;
  std::thread changer([&] {
    while (*guest.Data<std::atomic<uint64_t>>() < 1000) std::this_thread::yield();
    CHECK(guest.space().Protect(kData, kPage, PROT_READ).ok());
    const uint64_t after = *guest.Data<std::atomic<uint64_t>>();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    CHECK(*guest.Data<std::atomic<uint64_t>>() == after);
  });
  event = guest.Switch(registers);
  changer.join();
  REQUIRE(event.kind == EventKind::kFault);
  CHECK(event.access == platform::kAccessWrite);
  CHECK(event.address == kData);

  REQUIRE(guest.space().Protect(kData, kPage, PROT_READ | PROT_WRITE).ok());
  std::thread remover([&] {
    const uint64_t before = *guest.Data<std::atomic<uint64_t>>();
    while (*guest.Data<std::atomic<uint64_t>>() < before + 1000) std::this_thread::yield();
    CHECK(guest.space().Unmap(kData, kPage).ok());
  });
  event = guest.Switch(registers);
  remover.join();
  REQUIRE(event.kind == EventKind::kFault);
  CHECK(event.address == kData);
}

TEST_CASE("protect leaves holes alone", "[platform][memory]") {
  Guest guest(EachMachine(), code_store());
  REQUIRE(guest.space().Unmap(kData + kPage, kPage).ok());
  REQUIRE(guest.space().Protect(kData - 8 * kPage, kDataBytes + 16 * kPage, PROT_READ).ok());
  Registers registers = guest.Start();
  registers.rdi = kData + 2 * kPage;
  CHECK(guest.Switch(registers).kind == EventKind::kFault);
  REQUIRE(guest.space().Protect(kData, kDataBytes, PROT_READ | PROT_WRITE).ok());
  CHECK(guest.Switch(registers).kind == EventKind::kSyscall);
  CHECK(guest.space().Unmap(kData - 8 * kPage, 4 * kPage).ok());  // Nothing there.
}

TEST_CASE("a batch of maps is done in order", "[platform][memory]") {
  Machine& machine = EachMachine();
  Guest guest(machine, code_load());
  constexpr uint64_t kCount = 200;  // More than fit one hand-over.
  const platform::PoolRange range = machine.pool().Allocate(kCount * kPage).value();
  std::vector<platform::Mapping> mappings;
  for (uint64_t i = 0; i < kCount; i++) {
    *reinterpret_cast<uint64_t*>(machine.pool().Window(range).data() + i * kPage) = i;
    mappings.push_back({.address = 0x10000000 + (kCount - 1 - i) * kPage,
                        .length = kPage,
                        .host_fd = machine.pool().fd(),
                        .offset = range.start + i * kPage,
                        .protection = PROT_READ,
                        .populate = i % 2 == 0});
  }
  mappings.push_back({.address = 0x10000000,
                      .length = kPage,
                      .host_fd = machine.pool().fd(),
                      .offset = range.start + 5 * kPage,
                      .protection = PROT_READ,
                      .is_private = true});
  REQUIRE(guest.space().MapAll(mappings).ok());
  for (uint64_t page : {uint64_t{0}, uint64_t{1}, kCount / 2, kCount - 1}) {
    Registers registers = guest.Start();
    registers.rdi = 0x10000000 + page * kPage;
    REQUIRE(guest.Switch(registers).kind == EventKind::kSyscall);
    CHECK(registers.orig_rax == (page == 0 ? 5 : kCount - 1 - page));
  }
  mappings[3].address = 1;
  CHECK(guest.space().MapAll(mappings).error() == EINVAL);
  machine.pool().DropReference(range);
}

TEST_CASE("what one address space has, another has not", "[platform][memory]") {
  Machine& machine = EachMachine();
  Guest first(machine, code_load());
  Guest second(machine, code_load());
  first.Data<uint64_t>()[0] = 1;
  second.Data<uint64_t>()[0] = 2;
  Registers registers = first.Start();
  registers.rdi = kData;
  REQUIRE(first.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == 1);
  registers = second.Start();
  registers.rdi = kData;
  REQUIRE(second.Switch(registers).kind == EventKind::kSyscall);
  CHECK(registers.orig_rax == 2);
}

TEST_CASE("threads of the guest come and go", "[platform]") {
  Guest guest(EachMachine(), code_syscall_loop());
  std::atomic<int> calls = 0;
  for (int round = 0; round < 5; round++) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 8; i++) {
      threads.emplace_back([&] {
        auto context = guest.machine().platform().NewContext().value();
        REQUIRE(context->Prepare(guest.space()).ok());
        Registers registers = guest.Start();
        for (int call = 0; call < 50; call++) {
          registers.rax = kGetppid;
          if (context->Switch(guest.space(), registers).kind == EventKind::kSyscall) calls++;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  CHECK(calls == 5 * 8 * 50);
}

// A pair that shares a CPU must not bind the threads that its host thread makes.
TEST_CASE("a host thread may use all CPUs when its context is gone, whoever made it",
          "[platform]") {
  Guest guest(EachMachine(), code_syscall_loop());
  const cpu_set_t all = InitialCpus();
  std::atomic<bool> equal = false;
  std::thread pinned([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<size_t>(sched_getcpu()), &one);
    sched_setaffinity(0, sizeof(one), &one);
    std::thread child([&] {
      auto context = guest.machine().platform().NewContext().value();
      Registers registers = guest.Start();
      (void)context->Switch(guest.space(), registers);
      context.reset();
      cpu_set_t now;
      equal = sched_getaffinity(0, sizeof(now), &now) == 0 && CPU_EQUAL(&now, &all);
    });
    child.join();
  });
  pinned.join();
  CHECK(equal);
}

TEST_CASE("an address space that is retired is out of reach when it says so", "[platform][death]") {
  Machine& machine = EachMachine();
  std::atomic<int> gone = 0;
  std::vector<std::unique_ptr<Guest>> guests;
  for (int i = 0; i < 50; i++) {
    guests.push_back(std::make_unique<Guest>(machine, code_syscall_loop()));
    platform::Registers registers = guests.back()->Start();
    guests.back()->Switch(registers);
    Guest* guest = guests.back().get();
    machine.platform().Retire(guest->space(), [guest, &gone] {
      if (guest->space().Unmap(kData, kPage).error() == ESRCH) gone++;
    });
  }
  machine.platform().AwaitRetired();
  CHECK(gone == 50);
  guests.front()->space().End();
}

TEST_CASE("an address space is as good as new, or says that it is not", "[platform][memory]") {
  Machine& machine = EachMachine();
  Guest guest(machine, code_syscall_loop());
  platform::Registers registers = guest.Start();
  CHECK(guest.Switch(registers).kind == platform::EventKind::kSyscall);
  REQUIRE(guest.space().Reset());
  registers = guest.Start();
  CHECK(guest.Switch(registers).kind == platform::EventKind::kFault);
  std::unique_ptr<platform::Context> second = machine.platform().NewContext().value();
  registers = guest.Start();
  CHECK(second->Switch(guest.space(), registers).kind == platform::EventKind::kFault);
  CHECK_FALSE(guest.space().Reset());
}

TEST_CASE("a thousand address spaces live at the same time", "[platform]") {
  Machine& machine = EachMachine();
  std::vector<std::unique_ptr<platform::AddressSpace>> spaces;
  for (int i = 0; i < 1000; i++) {
    auto space = machine.platform().NewAddressSpace();
    REQUIRE(space.ok());
    spaces.push_back(std::move(space).value());
  }
  Guest guest(machine, code_syscall_loop());
  auto context = machine.platform().NewContext().value();
  REQUIRE(spaces[777]
              ->Map({.address = kCode,
                     .length = kPage,
                     .host_fd = machine.pool().fd(),
                     .offset = guest.code_range().start,
                     .protection = PROT_READ | PROT_EXEC})
              .ok());
  Registers registers = guest.Start();
  CHECK(context->Switch(*spaces[777], registers).kind == EventKind::kSyscall);
}

}  // namespace
