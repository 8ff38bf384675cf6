// System calls made many times from one place, by code in every position and state: a sandbox that
// replaces such code must not be noticed. Natively these are plain facts about x86-64 Linux.

#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"

// Call sites in the forms that compilers, libraries and assemblers make. Each returns rax.
asm(R"(
  .text
  .macro site name
  .balign 16
  .globl \name
\name:
  .endm
  .macro site_end name
  ret
  .globl \name\()_end
\name\()_end:
  .balign 16
  .fill 160, 1, 0x50      # No filler that a jump could be put into.
  .endm

  site site_mov_eax       # musl, inline glibc
  movl $39, %eax
  syscall
  site_end site_mov_eax

  site site_mov_rax
  movq $39, %rax
  syscall
  site_end site_mov_rax

  site site_xor           # read(2) of glibc: filler behind
  movl %edi, %eax
  syscall
  cmpq $-4096, %rax
  ja 1f
  ret
1:
  orq $-1, %rax
  ret
  .globl site_xor_end
site_xor_end:
  .balign 16
  .fill 16, 1, 0x50

  site site_nothing_fits  # keeps trapping
  movl %edi, %eax
  syscall
  site_end site_nothing_fits

  # With a jump to the syscall itself, eax loaded elsewhere.
  .globl site_jumped_to
  site site_two_ways
  movl $39, %eax
site_jumped_to:
  syscall
  site_end site_two_ways

  # mov and syscall in two pages: assembled into a page of its own by the test.
  .globl site_straddle_begin, site_straddle_end
site_straddle_begin:
  movl $39, %eax
  syscall
  ret
site_straddle_end:

  # All registers through a hot call: returns 0 if rcx, r11 apart nothing changes.
  site site_registers
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movabsq $0x1122334455667788, %rbx
  leaq 1(%rbx), %rbp
  leaq 2(%rbx), %r12
  leaq 3(%rbx), %r13
  leaq 4(%rbx), %r14
  leaq 5(%rbx), %r15
  leaq 6(%rbx), %rdi
  leaq 7(%rbx), %rsi
  leaq 8(%rbx), %rdx
  leaq 9(%rbx), %r10
  leaq 10(%rbx), %r8
  leaq 11(%rbx), %r9
  movq %rbx, -8(%rsp)
  movq %rbp, -128(%rsp)
  movq %rbx, %xmm3
  std
  stc
  movl $39, %eax
  syscall
  jnc 9f
  cld
  movq %xmm3, %rcx
  cmpq %rbx, %rcx
  jne 9f
  cmpq %rbx, -8(%rsp)
  jne 9f
  cmpq %rbp, -128(%rsp)
  jne 9f
  .irp reg, rbp, r12, r13, r14, r15, rdi, rsi, rdx, r10, r8, r9
  incq %rbx
  cmpq %rbx, %\reg
  jne 9f
  .endr
  xorl %eax, %eax
  jmp 8f
9:
  movl $1, %eax
8:
  cld
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  site_end site_registers
)");

extern "C" {
long site_mov_eax();
long site_mov_rax();
long site_xor(long number, ...);
long site_nothing_fits(long number, ...);
long site_two_ways();
long site_registers();
extern const char site_mov_eax_end[], site_jumped_to[], site_straddle_begin[], site_straddle_end[];
}

namespace {

constexpr int kHot = 200;
constexpr size_t kPageBytes = 4096;

// getpid's number and nothing else.
long CallAt(const void* site, long number) {
  long result = number;
  asm volatile("call *%1" : "+a"(result) : "r"(site) : "rcx", "r11", "memory", "cc");
  return result;
}

class Pages {
 public:
  explicit Pages(size_t count, int protection = PROT_READ | PROT_WRITE)
      : bytes_(count * kPageBytes) {
    void* memory = mmap(nullptr, bytes_, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(memory != MAP_FAILED);
    data_ = static_cast<uint8_t*>(memory);
  }
  ~Pages() { munmap(data_, bytes_); }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  uint8_t* data() { return data_; }
  void Protect(int protection) { REQUIRE(mprotect(data_, bytes_, protection) == 0); }

 private:
  uint8_t* data_ = nullptr;
  const size_t bytes_;
};

using Function = long (*)();

TEST_CASE("a hot call site of each form goes on giving the right answer") {
  const long pid = getpid();
  for (int i = 0; i < kHot; i++) {
    REQUIRE(site_mov_eax() == pid);
    REQUIRE(site_mov_rax() == pid);
    REQUIRE(site_xor(SYS_getpid) == pid);
    REQUIRE(site_nothing_fits(SYS_getpid) == pid);
    REQUIRE(site_two_ways() == pid);
    REQUIRE(site_registers() == 0);
    REQUIRE(syscall(SYS_getpid) == pid);
    REQUIRE(read(-1, nullptr, 0) == -1);
    REQUIRE(errno == EBADF);
  }
}

TEST_CASE("one site makes different calls") {
  for (int i = 0; i < kHot; i++) {
    REQUIRE(site_xor(SYS_getpid) == getpid());
    REQUIRE(site_xor(SYS_getppid) == getppid());
    REQUIRE(site_xor(100000) == -1);
    REQUIRE(syscall(SYS_gettid) == gettid());
  }
}

TEST_CASE("a jump to the syscall instruction of a hot site makes the call in rax") {
  for (int i = 0; i < kHot; i++) REQUIRE(site_two_ways() == getpid());
  for (int i = 0; i < 20; i++) {
    REQUIRE(CallAt(site_jumped_to, SYS_getppid) == getppid());
    REQUIRE(site_two_ways() == getpid());
  }
}

TEST_CASE("hot sites that straddle a cache line or a page") {
  const auto length = static_cast<size_t>(site_straddle_end - site_straddle_begin);
  for (size_t boundary : {size_t{64}, kPageBytes}) {
    for (size_t before = 0; before <= length; before++) {
      Pages pages(3);
      uint8_t* at = pages.data() + kPageBytes + boundary % kPageBytes - before;
      std::memset(pages.data(), 0x50, 3 * kPageBytes);
      std::memcpy(at, site_straddle_begin, length);
      pages.Protect(PROT_READ | PROT_EXEC);
      Function call;
      std::memcpy(&call, &at, sizeof(call));
      for (int i = 0; i < 20; i++) REQUIRE(call() == getpid());
    }
  }
}

TEST_CASE("code that becomes writable again is what was written") {
  Pages pages(1);
  const auto length = static_cast<size_t>(site_straddle_end - site_straddle_begin);
  Function call;
  uint8_t* at = pages.data();
  std::memcpy(&call, &at, sizeof(call));
  for (int round = 0; round < 20; round++) {
    // getpid, getppid in turn, by changing the number in place.
    pages.Protect(PROT_READ | PROT_WRITE);
    if (round > 0) REQUIRE(std::memcmp(at + 5, site_straddle_begin + 5, 2) == 0);
    std::memcpy(at, site_straddle_begin, length);
    at[1] = round % 2 == 0 ? SYS_getpid : SYS_getppid;
    pages.Protect(PROT_READ | PROT_EXEC);
    const long expected = round % 2 == 0 ? getpid() : getppid();
    for (int i = 0; i < 20; i++) REQUIRE(call() == expected);
  }
}

TEST_CASE("code in writable memory makes calls as it is changed") {
  Pages pages(1, PROT_READ | PROT_WRITE | PROT_EXEC);
  std::memcpy(pages.data(), site_straddle_begin,
              static_cast<size_t>(site_straddle_end - site_straddle_begin));
  Function call;
  uint8_t* at = pages.data();
  std::memcpy(&call, &at, sizeof(call));
  for (int i = 0; i < kHot; i++) {
    at[1] = i % 2 == 0 ? SYS_getpid : SYS_getppid;
    REQUIRE(call() == (i % 2 == 0 ? getpid() : getppid()));
  }
}

TEST_CASE("hot code that is unmapped and other code in its place") {
  Pages pages(1);
  uint8_t* at = pages.data();
  Function call;
  std::memcpy(&call, &at, sizeof(call));
  for (int round = 0; round < 10; round++) {
    REQUIRE(mmap(at, kPageBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                 -1, 0) == at);
    std::memcpy(at, site_straddle_begin, 8);
    at[1] = round % 2 == 0 ? SYS_getpid : SYS_getppid;
    pages.Protect(PROT_READ | PROT_EXEC);
    for (int i = 0; i < 20; i++) REQUIRE(call() == (round % 2 == 0 ? getpid() : getppid()));
  }
}

TEST_CASE("hot code that mremap moves runs in its new place") {
  Pages pages(2);
  uint8_t* at = pages.data();
  std::memcpy(at, site_straddle_begin, 8);
  REQUIRE(mprotect(at, kPageBytes, PROT_READ | PROT_EXEC) == 0);
  for (int round = 0; round < 6; round++) {
    Function call;
    std::memcpy(&call, &at, sizeof(call));
    for (int i = 0; i < 20; i++) REQUIRE(call() == getpid());
    uint8_t* to = at == pages.data() ? at + kPageBytes : pages.data();
    REQUIRE(mremap(at, kPageBytes, kPageBytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to);
    at = to;
  }
}

TEST_CASE("several threads come to the same new site at once") {
  for (int round = 0; round < 10; round++) {
    Pages pages(1);
    std::memcpy(pages.data(), site_straddle_begin, 8);
    pages.Protect(PROT_READ | PROT_EXEC);
    Function call;
    uint8_t* at = pages.data();
    std::memcpy(&call, &at, sizeof(call));
    std::atomic<int> wrong = 0;
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 4; thread++) {
      threads.emplace_back([&] {
        for (int i = 0; i < 300; i++) wrong += call() == getpid() ? 0 : 1;
      });
    }
    for (std::thread& thread : threads) thread.join();
    REQUIRE(wrong == 0);
  }
}

std::atomic<int> signals = 0;
std::atomic<int> strange = 0;
uint64_t code_low = 0, code_high = 0;

void LookAround(int, siginfo_t*, void* context) {
  const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto rip = static_cast<uint64_t>(registers[REG_RIP]);
  signals++;
  if (rip < code_low || rip >= code_high) strange++;
}

extern "C" const char __executable_start, etext;

TEST_CASE("signals find hot call sites at their own addresses") {
  code_low = reinterpret_cast<uint64_t>(&__executable_start);
  code_high = reinterpret_cast<uint64_t>(&etext);
  signals = strange = 0;
  struct sigaction action{};
  action.sa_sigaction = LookAround;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  struct sigaction old{};
  REQUIRE(sigaction(SIGALRM, &action, &old) == 0);
  const itimerval timer{{0, 200}, {0, 200}};
  REQUIRE(setitimer(ITIMER_REAL, &timer, nullptr) == 0);
  const long pid = getpid();
  int wrong = 0;
  for (long i = 0; signals < 300 && i < 3000000; i++) {
    wrong += site_mov_eax() != pid;
    wrong += site_mov_rax() != pid;
    wrong += site_xor(SYS_getpid) != pid;
    wrong += site_registers() != 0;
  }
  const itimerval never{};
  setitimer(ITIMER_REAL, &never, nullptr);
  sigaction(SIGALRM, &old, nullptr);
  CHECK(wrong == 0);
  CHECK(signals >= 300);
  CHECK(strange == 0);
}

TEST_CASE("a call at a hot site is restarted after a signal") {
  // site_two_ways has its number overwritten when it is rewritten: the restart goes to its middle.
  for (int i = 0; i < kHot; i++) site_two_ways();
  int pipe_ends[2];
  REQUIRE(pipe(pipe_ends) == 0);
  code_low = 0;
  code_high = ~uint64_t{0};
  signals = 0;
  struct sigaction action{};
  action.sa_sigaction = LookAround;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  struct sigaction old{};
  REQUIRE(sigaction(SIGUSR1, &action, &old) == 0);
  const pthread_t self = pthread_self();
  std::thread other([&] {
    for (int i = 0; i < 5; i++) {
      usleep(20000);
      pthread_kill(self, SIGUSR1);
    }
    usleep(20000);
    REQUIRE(write(pipe_ends[1], "x", 1) == 1);
  });
  char byte = 0;
  long result = SYS_read;
  register long fd asm("rdi") = pipe_ends[0];
  register char* buffer asm("rsi") = &byte;
  register long count asm("rdx") = 1;
  asm volatile("call *%1"
               : "+a"(result)
               : "r"(site_jumped_to), "r"(fd), "r"(buffer), "r"(count)
               : "rcx", "r11", "memory", "cc");
  other.join();
  sigaction(SIGUSR1, &old, nullptr);
  CHECK(result == 1);
  CHECK(byte == 'x');
  CHECK(signals == 5);
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

TEST_CASE("forked and vforked children go on with hot sites") {
  for (int i = 0; i < kHot; i++) site_mov_eax();
  for (int round = 0; round < 5; round++) {
    const pid_t forked = fork();
    if (forked == 0) {
      for (int i = 0; i < kHot; i++) {
        if (site_mov_eax() != syscall(SYS_getpid)) _exit(1);
        if (site_xor(SYS_getppid) != getppid()) _exit(2);
        if (site_mov_rax() != site_mov_eax()) _exit(3);
      }
      _exit(7);
    }
    int status = 0;
    REQUIRE(waitpid(forked, &status, 0) == forked);
    CHECK(WEXITSTATUS(status) == 7);
    for (int i = 0; i < 20; i++) REQUIRE(site_mov_eax() == getpid());
    const pid_t vforked = vfork();
    if (vforked == 0) {
      for (int i = 0; i < 20; i++) site_mov_rax();
      _exit(site_mov_eax() == getpid() ? 8 : 9);
    }
    REQUIRE(waitpid(vforked, &status, 0) == vforked);
    CHECK(WEXITSTATUS(status) == 8);
  }
}

std::vector<uint64_t>* stepped = nullptr;

void OnStep(int, siginfo_t*, void* context) {
  const auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  if (stepped->size() < stepped->capacity()) {
    stepped->push_back(static_cast<uint64_t>(registers[REG_RIP]));
  }
}

long Stepped(long (*function)()) {
  long result = 0;
  asm volatile(
      "pushfq\n orq $0x100, (%%rsp)\n popfq\n"
      "call *%1\n"
      "pushfq\n andq $~0x100, (%%rsp)\n popfq\n"
      : "=a"(result)
      : "r"(function)
      : "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
  return result;
}

TEST_CASE("single steps over a site are the same, hot or not") {
  struct sigaction action{};
  action.sa_sigaction = OnStep;
  action.sa_flags = SA_SIGINFO;
  struct sigaction old{};
  REQUIRE(sigaction(SIGTRAP, &action, &old) == 0);
  for (long (*function)() : {&site_mov_eax, &site_mov_rax, +[] { return site_xor(SYS_getpid); }}) {
    std::vector<uint64_t> cold, hot;
    cold.reserve(200);
    hot.reserve(200);
    stepped = &cold;
    CHECK(Stepped(function) == getpid());
    for (int i = 0; i < kHot; i++) function();
    stepped = &hot;
    CHECK(Stepped(function) == getpid());
    CHECK(cold == hot);
  }
  sigaction(SIGTRAP, &old, nullptr);
}

TEST_CASE("the lowest pages are there for the taking") {
  for (int i = 0; i < kHot; i++) site_mov_eax();
  const pid_t child = fork();
  if (child == 0) {
    // Over all that a sandbox might keep down there.
    constexpr size_t kBytes = 0x100000;
    auto* low = reinterpret_cast<uint8_t*>(0x10000);
    if (mmap(low, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
        low) {
      _exit(1);
    }
    for (size_t i = 0; i < kBytes; i += 512) {
      if (low[i] != 0) _exit(2);
    }
    std::memset(low, 0xff, kBytes);
    for (int i = 0; i < kHot; i++) {
      if (site_mov_eax() != getpid() || site_mov_rax() != getpid()) _exit(3);
      if (site_xor(SYS_getppid) != getppid()) _exit(4);
    }
    _exit(7);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 7 << 8);
}

TEST_CASE("a debugger's words go in and out of hot code") {
  for (int i = 0; i < kHot; i++) site_mov_eax();
  const pid_t child = fork();
  if (child == 0) {
    if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) _exit(errno == ENOSYS ? 77 : 1);
    raise(SIGSTOP);
    for (int i = 0; i < kHot; i++) {
      if (site_mov_eax() != getpid()) _exit(1);
    }
    _exit(7);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  if (WIFEXITED(status)) {
    CHECK(WEXITSTATUS(status) == 77);  // A kernel without ptrace.
    return;
  }
  void* at = reinterpret_cast<void*>(&site_mov_eax);
  const long word = ptrace(PTRACE_PEEKTEXT, child, at, nullptr);
  CHECK(ptrace(PTRACE_POKETEXT, child, at, reinterpret_cast<void*>((word & ~0xffL) | 0xcc)) == 0);
  REQUIRE(ptrace(PTRACE_CONT, child, nullptr, nullptr) == 0);
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSTOPPED(status));
  CHECK(WSTOPSIG(status) == SIGTRAP);
  CHECK(ptrace(PTRACE_POKETEXT, child, at, reinterpret_cast<void*>(word)) == 0);
  user_regs_struct registers{};
  REQUIRE(ptrace(PTRACE_GETREGS, child, nullptr, &registers) == 0);
  CHECK(registers.rip == reinterpret_cast<uint64_t>(at) + 1);
  registers.rip--;
  REQUIRE(ptrace(PTRACE_SETREGS, child, nullptr, &registers) == 0);
  REQUIRE(ptrace(PTRACE_CONT, child, nullptr, nullptr) == 0);
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 7 << 8);
}

TEST_CASE("code in a shared mapping is changed through another one") {
  const int fd = memfd_create("code", 0);
  REQUIRE(fd >= 0);
  REQUIRE(ftruncate(fd, kPageBytes) == 0);
  auto* writable =
      static_cast<uint8_t*>(mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  void* shared = mmap(nullptr, kPageBytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
  REQUIRE(writable != MAP_FAILED);
  REQUIRE(shared != MAP_FAILED);
  std::memcpy(writable, site_straddle_begin, 8);
  Function call;
  std::memcpy(&call, &shared, sizeof(call));
  // As a just-in-time compiler with two views of its code does.
  for (int i = 0; i < kHot; i++) {
    writable[1] = i % 40 < 20 ? SYS_getpid : SYS_getppid;
    REQUIRE(call() == (i % 40 < 20 ? getpid() : getppid()));
  }
  munmap(writable, kPageBytes);
  munmap(shared, kPageBytes);
  close(fd);
}

}  // namespace
