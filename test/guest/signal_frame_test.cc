// Signals: synchronous faults, alternate stacks, frames.

#include <cpuid.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"
#include "test/guest/signal_support.h"

namespace {

using namespace signal_test;

sigjmp_buf g_jump;
volatile uint64_t g_fault_address;
volatile int g_fault_code;
volatile int64_t g_fault_error;
volatile int64_t g_fault_trap;

void OnFault(int, siginfo_t* info, void* context) {
  g_fault_address = reinterpret_cast<uint64_t>(info->si_addr);
  g_fault_code = info->si_code;
  const auto* uc = static_cast<ucontext_t*>(context);
  g_fault_error = uc->uc_mcontext.gregs[REG_ERR];
  g_fault_trap = uc->uc_mcontext.gregs[REG_TRAPNO];
  siglongjmp(g_jump, 1);
}

TEST_CASE("a fault tells its address and its reason", "[signal][fault]") {
  const ScopedAction action(SIGSEGV, OnFault, 0);
  auto* page = static_cast<volatile char*>(
      mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (sigsetjmp(g_jump, 1) == 0) {
    page[5] = 1;
    FAIL("wrote to a page that is read-only");
  }
  CHECK(g_fault_address == reinterpret_cast<uint64_t>(page) + 5);
  CHECK(g_fault_code == SEGV_ACCERR);
  CHECK(g_fault_trap == 14);
  CHECK((g_fault_error & 6) == 6);  // User, write.
  munmap(const_cast<char*>(page), 4096);
  if (sigsetjmp(g_jump, 1) == 0) {
    (void)page[7];
    FAIL("read what is not mapped");
  }
  CHECK(g_fault_address == reinterpret_cast<uint64_t>(page) + 7);
  CHECK(g_fault_code == SEGV_MAPERR);
}

TEST_CASE("a handler may repair a fault and return", "[signal][fault]") {
  static char* page;
  page = static_cast<char*>(mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  const ScopedAction action(SIGSEGV, [](int) { mprotect(page, 4096, PROT_READ | PROT_WRITE); });
  *reinterpret_cast<volatile int*>(page) = 42;
  CHECK(*reinterpret_cast<volatile int*>(page) == 42);
  munmap(page, 4096);
}

TEST_CASE("a fault that is resolved leaves vector registers alone", "[signal][fault]") {
  auto* page = static_cast<char*>(
      mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  page[0] = page[4096] = 1;
  alignas(16) char in[16];
  std::memset(in, 0x5a, sizeof(in));
  const pid_t child = fork();  // Both sides now share the pages until one writes.
  if (child == 0) _exit(0);
  asm volatile("movdqa %[in], %%xmm9\n movdqu %%xmm9, %[out]\n"
               : [out] "=m"(*reinterpret_cast<char(*)[16]>(page + 4096))
               : [in] "m"(in)
               : "xmm9");
  CHECK(std::memcmp(page + 4096, in, sizeof(in)) == 0);
  waitpid(child, nullptr, 0);
  munmap(page, 8192);
}

TEST_CASE("a division by zero is SIGFPE, a bad instruction SIGILL, int3 SIGTRAP",
          "[signal][fault]") {
  {
    const ScopedAction action(SIGFPE, OnFault, 0);
    if (sigsetjmp(g_jump, 1) == 0)
      asm volatile("xor %%ecx, %%ecx\n xor %%edx, %%edx\n mov $1, %%eax\n idiv %%ecx" ::
                       : "eax", "ecx", "edx");
    CHECK(g_fault_code == FPE_INTDIV);
  }
  {
    const ScopedAction action(SIGILL, OnFault, 0);
    if (sigsetjmp(g_jump, 1) == 0) asm volatile("ud2");
    CHECK(g_fault_code == ILL_ILLOPN);
  }
  g_count = 0;
  const ScopedAction action(SIGTRAP, Count);
  asm volatile("int3");
  CHECK(g_count == 1);
}

TEST_CASE("a general protection fault has no address", "[signal][fault]") {
  const ScopedAction action(SIGSEGV, OnFault, 0);
  g_fault_address = 1;
  if (sigsetjmp(g_jump, 1) == 0) asm volatile("hlt");
  CHECK(g_fault_code == SI_KERNEL);
  CHECK(g_fault_address == 0);
  CHECK(g_fault_trap == 13);
  if (sigsetjmp(g_jump, 1) == 0) *reinterpret_cast<volatile char*>(0x8000000000000000) = 1;
  CHECK(g_fault_code == SI_KERNEL);
}

TEST_CASE("a fault with its signal blocked or ignored is fatal", "[signal][fault]") {
  const int blocked = ChildStatus([] {
    sigset_t set;
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, nullptr);
    signal(SIGSEGV, [](int) { _exit(1); });
    *reinterpret_cast<volatile char*>(8) = 1;
  });
  REQUIRE(WIFSIGNALED(blocked));
  CHECK(WTERMSIG(blocked) == SIGSEGV);
  const int ignored = ChildStatus([] {
    signal(SIGSEGV, SIG_IGN);
    *reinterpret_cast<volatile char*>(8) = 1;
  });
  REQUIRE(WIFSIGNALED(ignored));
  CHECK(WTERMSIG(ignored) == SIGSEGV);
}

TEST_CASE("default actions: end, ignore, stop", "[signal]") {
  for (const int signal :
       {SIGHUP, SIGTERM, SIGUSR1, SIGPIPE, SIGALRM, SIGABRT, SIGQUIT, SIGRTMIN + 3}) {
    static int chosen;
    chosen = signal;
    const int status = ChildStatus([] { raise(chosen); });
    CAPTURE(signal);
    REQUIRE(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == signal);
  }
  for (const int signal : {SIGCHLD, SIGWINCH, SIGURG, SIGCONT}) {
    static int chosen;
    chosen = signal;
    CAPTURE(signal);
    CHECK(ChildStatus([] { raise(chosen); }) == 0);
  }
}

// --- Frames.

alignas(64) char g_stack[65536];
volatile uint64_t g_handler_sp;

TEST_CASE("SA_ONSTACK runs on the alternate stack, which cannot change meanwhile",
          "[signal][altstack]") {
  const stack_t stack{g_stack, 0, sizeof(g_stack)};
  REQUIRE(sigaltstack(&stack, nullptr) == 0);
  static int change_error, flags_inside;
  const ScopedAction action(
      SIGUSR1,
      [](int) {
        int local = 0;
        g_handler_sp = reinterpret_cast<uint64_t>(&local);
        stack_t now{};
        sigaltstack(nullptr, &now);
        flags_inside = now.ss_flags;
        const stack_t off{nullptr, SS_DISABLE, 0};
        change_error = sigaltstack(&off, nullptr) == 0 ? 0 : errno;
      },
      SA_ONSTACK);
  raise(SIGUSR1);
  CHECK(g_handler_sp >= reinterpret_cast<uint64_t>(g_stack));
  CHECK(g_handler_sp < reinterpret_cast<uint64_t>(g_stack) + sizeof(g_stack));
  CHECK(flags_inside == SS_ONSTACK);
  CHECK(change_error == EPERM);
  const stack_t off{nullptr, SS_DISABLE, 0};
  CHECK(sigaltstack(&off, nullptr) == 0);
  stack_t now{};
  sigaltstack(nullptr, &now);
  CHECK(now.ss_flags == SS_DISABLE);
}

TEST_CASE("sigaltstack refuses small stacks and strange flags", "[signal][altstack]") {
  const stack_t small{g_stack, 0, 1024};
  CHECK(sigaltstack(&small, nullptr) == -1);
  CHECK(errno == ENOMEM);
  const stack_t strange{g_stack, 0x40, sizeof(g_stack)};
  CHECK(sigaltstack(&strange, nullptr) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("SS_AUTODISARM takes the alternate stack away while a handler runs",
          "[signal][altstack]") {
  const stack_t stack{g_stack, static_cast<int>(1U << 31), sizeof(g_stack)};
  REQUIRE(sigaltstack(&stack, nullptr) == 0);
  static int flags_inside;
  const ScopedAction action(
      SIGUSR1,
      [](int) {
        stack_t now{};
        sigaltstack(nullptr, &now);
        flags_inside = now.ss_flags;
      },
      SA_ONSTACK);
  raise(SIGUSR1);
  CHECK(flags_inside == SS_DISABLE);
  stack_t now{};
  sigaltstack(nullptr, &now);
  CHECK(now.ss_sp == g_stack);
  const stack_t off{nullptr, SS_DISABLE, 0};
  sigaltstack(&off, nullptr);
}

TEST_CASE("the red zone and all registers survive a handler", "[signal][frame]") {
  const ScopedAction action(SIGUSR1, [](int) {
    // Clobbers what a handler may.
    asm volatile(
        "mov $1, %%r8\n mov $1, %%r9\n mov $1, %%r10\n mov $1, %%r11\n pxor %%xmm0, %%xmm0\n" ::
            : "r8", "r9", "r10", "r11", "xmm0");
    volatile char room[512];
    for (volatile char& byte : room) byte = 1;
  });
  const long pid = getpid();
  const long tid = syscall(SYS_gettid);
  uint64_t bad = 0;
  // tgkill(pid, tid, SIGUSR1) with known values everywhere and below the stack pointer.
  asm volatile(
      "mov $0x1122334455667788, %%rbx\n"
      "mov %%rbx, -8(%%rsp)\n mov %%rbx, -64(%%rsp)\n mov %%rbx, -128(%%rsp)\n"
      "mov %%rbx, %%r8\n mov %%rbx, %%r9\n mov %%rbx, %%r10\n mov %%rbx, %%r12\n mov %%rbx, %%r13\n"
      "mov %%rbx, %%r14\n mov %%rbx, %%r15\n movq %%rbx, %%xmm7\n"
      "mov $234, %%eax\n mov $10, %%edx\n std\n syscall\n"
      "pushfq\n popq %%rcx\n cld\n xor %0, %0\n"
      "test $0x400, %%ecx\n jnz 1f\n or $1, %0\n 1:\n"
      "cmp %%rbx, -64(%%rsp)\n je 1f\n or $4, %0\n 1:\n"
      "cmp %%rbx, -128(%%rsp)\n je 1f\n or $8, %0\n 1:\n"
      "cmp %%rbx, %%r8\n je 1f\n or $16, %0\n 1:\n cmp %%rbx, %%r9\n je 1f\n or $32, %0\n 1:\n"
      "cmp %%rbx, %%r10\n je 1f\n or $64, %0\n 1:\n cmp %%rbx, %%r12\n je 1f\n or $128, %0\n 1:\n"
      "cmp %%rbx, %%r15\n je 1f\n or $256, %0\n 1:\n movq %%xmm7, %%rcx\n cmp %%rbx, %%rcx\n je "
      "1f\n or $512, %0\n 1:\n"
      "test %%rax, %%rax\n je 1f\n or $1024, %0\n 1:\n"
      : "=&S"(bad)
      : "D"(pid), "0"(tid)
      : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm7",
        "memory", "cc");
  CHECK(bad == 0);
}

// Set by handlers that find something wrong; what a flood of signals must leave alone.
std::atomic<int> g_flood_errors{0};
std::atomic<long> g_flood_count{0};

void CheckFlood(int signal, siginfo_t* info, void* context) {
  const auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (signal != SIGUSR1 || info->si_signo != SIGUSR1 || info->si_code != SI_QUEUE) g_flood_errors++;
  if (registers[REG_RSP] == 0) g_flood_errors++;
  g_flood_count++;
}

// All registers but rsp, for some microseconds. 0 if they kept what was put into them.
int HoldRegisters() {
  uint64_t wrong = 0;
  asm volatile(
      "mov $0x1111, %%rbx; mov $0x2222, %%rcx; mov $0x3333, %%rdx; mov $0x4444, %%rsi\n"
      "mov $0x5555, %%rdi; mov $0x6666, %%r8; mov $0x7777, %%r9; mov $0x8888, %%r10\n"
      "mov $0x9999, %%r11; mov $0xaaaa, %%r12; mov $0xbbbb, %%r13; mov $0xcccc, %%r14\n"
      "movq %%rbx, %%xmm3; movq %%r14, %%xmm15; mov $2000, %%r15\n"
      "1: cmp $0x1111, %%rbx; jne 2f; cmp $0x2222, %%rcx; jne 2f; cmp $0x3333, %%rdx; jne 2f\n"
      "cmp $0x4444, %%rsi; jne 2f; cmp $0x5555, %%rdi; jne 2f; cmp $0x6666, %%r8; jne 2f\n"
      "cmp $0x7777, %%r9; jne 2f; cmp $0x8888, %%r10; jne 2f; cmp $0x9999, %%r11; jne 2f\n"
      "cmp $0xaaaa, %%r12; jne 2f; cmp $0xbbbb, %%r13; jne 2f; cmp $0xcccc, %%r14; jne 2f\n"
      "movq %%xmm3, %%rbx; movq %%xmm15, %%r14; dec %%r15; jnz 1b; xor %%eax, %%eax; jmp 3f\n"
      "2: mov $1, %%eax\n"
      "3:"
      : "=a"(wrong)
      :
      : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
        "xmm3", "xmm15", "memory", "cc");
  return static_cast<int>(wrong);
}

TEST_CASE("signals that come as fast as they can leave registers and frames whole",
          "[signal][frame][thread]") {
  g_flood_errors = 0;
  g_flood_count = 0;
  const ScopedAction flood(SIGUSR1, CheckFlood, 0);
  std::atomic<bool> stop{false};
  std::thread sender;
  {
    const ScopedBlock block({SIGUSR1});
    sender = std::thread([&stop] {
      siginfo_t info{};
      info.si_code = SI_QUEUE;
      info.si_pid = getpid();
      unsigned turn = 0;
      while (!stop) {
        (void)syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &info);
        if (++turn % 3 == 0) sched_yield();
      }
    });
  }
  timespec start{}, now{};
  clock_gettime(CLOCK_MONOTONIC, &start);
  do {
    g_flood_errors += HoldRegisters();
    const timespec nap{0, 1'000'000};
    nanosleep(&nap, nullptr);
    if (syscall(SYS_getppid) != getppid()) g_flood_errors++;
    clock_gettime(CLOCK_MONOTONIC, &now);
  } while (now.tv_sec - start.tv_sec < 3);
  stop = true;
  sender.join();
  CHECK(g_flood_errors == 0);
  CHECK(g_flood_count > 0);
}

TEST_CASE("a frame carries extended state between its two marks", "[signal][frame]") {
  static uint32_t magic1, magic2, extended, xstate_bytes;
  static uint64_t uc_flags, alignment, features;
  const ScopedAction action(
      SIGUSR1,
      [](int, siginfo_t*, void* context) {
        const auto* uc = static_cast<ucontext_t*>(context);
        const auto* fpu = reinterpret_cast<const char*>(uc->uc_mcontext.fpregs);
        uc_flags = uc->uc_flags;
        alignment = reinterpret_cast<uint64_t>(fpu) % 64;
        std::memcpy(&magic1, fpu + 464, 4);
        std::memcpy(&extended, fpu + 468, 4);
        std::memcpy(&features, fpu + 472, 8);
        std::memcpy(&xstate_bytes, fpu + 480, 4);
        if (magic1 == 0x46505853) std::memcpy(&magic2, fpu + xstate_bytes, 4);
      },
      0);
  raise(SIGUSR1);
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __get_cpuid(1, &eax, &ebx, &ecx, &edx);
  CHECK(alignment == 0);
  CHECK((uc_flags & 6) == 6);
  if ((ecx & (1U << 27)) != 0) {
    CHECK((uc_flags & 1) == 1);
    CHECK(magic1 == 0x46505853);
    CHECK(magic2 == 0x46505845);
    CHECK(extended == xstate_bytes + 4);
    CHECK((features & 3) == 3);
  }
}

TEST_CASE("a handler may change registers for its return", "[signal][frame]") {
  static volatile int passed;
  passed = 0;
  const ScopedAction action(
      SIGILL,
      [](int, siginfo_t*, void* context) {
        auto* uc = static_cast<ucontext_t*>(context);
        uc->uc_mcontext.gregs[REG_RIP] += 2;
        uc->uc_mcontext.gregs[REG_RBX] = 0x77;
        passed = 1;
      },
      0);
  uint64_t rbx = 0;
  asm volatile("ud2\n mov %%rbx, %0" : "=r"(rbx) : : "rbx");
  CHECK(passed == 1);
  CHECK(rbx == 0x77);
}

TEST_CASE("sigreturn takes no privileged flags", "[signal][frame]") {
  static uint64_t after;
  const ScopedAction action(
      SIGUSR1,
      [](int, siginfo_t*, void* context) {
        auto* uc = static_cast<ucontext_t*>(context);
        uc->uc_mcontext.gregs[REG_EFL] |= 0x3000 | 0x20000;  // IOPL, VM.
        uc->uc_mcontext.gregs[REG_EFL] &= ~0x200;            // IF.
      },
      0);
  raise(SIGUSR1);
  asm volatile("pushfq\n popq %0" : "=r"(after));
  CHECK((after & 0x3000) == 0);
  CHECK((after & 0x200) == 0x200);
}

TEST_CASE("a hostile frame is SIGSEGV, not worse", "[signal][frame]") {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __get_cpuid(1, &eax, &ebx, &ecx, &edx);
  if ((ecx & (1U << 27)) == 0) return;
  // Reserved bits of the XSAVE header.
  const int header = ChildStatus([] {
    struct sigaction action{};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t*, void* context) {
      auto* fpu = reinterpret_cast<char*>(static_cast<ucontext_t*>(context)->uc_mcontext.fpregs);
      std::memset(fpu + 512 + 16, 0xff, 32);
    };
    sigaction(SIGUSR1, &action, nullptr);
    raise(SIGUSR1);
  });
  REQUIRE(WIFSIGNALED(header));
  CHECK(WTERMSIG(header) == SIGSEGV);
  // A pointer to nowhere.
  const int pointer = ChildStatus([] {
    struct sigaction action{};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t*, void* context) {
      static_cast<ucontext_t*>(context)->uc_mcontext.fpregs = reinterpret_cast<fpregset_t>(0x40);
    };
    sigaction(SIGUSR1, &action, nullptr);
    raise(SIGUSR1);
  });
  REQUIRE(WIFSIGNALED(pointer));
  CHECK(WTERMSIG(pointer) == SIGSEGV);
  // rt_sigreturn with a stack pointer that leads nowhere.
  const int stack = ChildStatus([] {
    asm volatile("mov $64, %%rsp\n mov $15, %%eax\n syscall" ::: "memory");
  });
  REQUIRE(WIFSIGNALED(stack));
  CHECK(WTERMSIG(stack) == SIGSEGV);
}

TEST_CASE("no room for a frame is a fatal SIGSEGV", "[signal][frame]") {
  const int status = ChildStatus([] {
    signal(SIGUSR1, [](int) { _exit(1); });
    const long pid = getpid();
    const long tid = syscall(SYS_gettid);
    asm volatile("mov $64, %%rsp\n mov $234, %%eax\n mov $10, %%edx\n syscall" ::"D"(pid), "S"(tid)
                 : "rax", "rcx", "rdx", "r11", "memory");
  });
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGSEGV);
}

TEST_CASE("a handler that overflows the alternate stack is ended", "[signal][altstack]") {
  const int status = ChildStatus([] {
    auto* area = static_cast<char*>(
        mmap(nullptr, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    // On it already, with no room left for another frame.
    const stack_t stack{area + 32768, 0, 16384};
    sigaltstack(&stack, nullptr);
    struct sigaction action{};
    action.sa_flags = SA_ONSTACK | SA_NODEFER;
    action.sa_handler = [](int) { raise(SIGUSR1); };
    sigaction(SIGUSR1, &action, nullptr);
    raise(SIGUSR1);
  });
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGSEGV);
}

}  // namespace
