// Signals: queues, masks, handlers, frames, restarts, synchronous faults.

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

namespace {

struct KernelAction {
  uint64_t handler, flags, restorer, mask;
};

// Puts back an action when a case ends.
class ScopedAction {
 public:
  ScopedAction(int signal, void (*handler)(int), int flags = 0) : signal_(signal) {
    struct sigaction action{};
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(signal, &action, &old_);
  }
  ScopedAction(int signal, void (*handler)(int, siginfo_t*, void*), int flags) : signal_(signal) {
    struct sigaction action{};
    action.sa_sigaction = handler;
    action.sa_flags = flags | SA_SIGINFO;
    sigaction(signal, &action, &old_);
  }
  ~ScopedAction() { sigaction(signal_, &old_, nullptr); }

 private:
  int signal_;
  struct sigaction old_{};
};

class ScopedBlock {
 public:
  explicit ScopedBlock(std::initializer_list<int> signals) {
    sigemptyset(&set_);
    for (const int signal : signals) sigaddset(&set_, signal);
    sigprocmask(SIG_BLOCK, &set_, &old_);
  }
  ~ScopedBlock() { sigprocmask(SIG_SETMASK, &old_, nullptr); }
  const sigset_t* set() const { return &set_; }

 private:
  sigset_t set_, old_;
};

volatile sig_atomic_t g_count = 0;
volatile sig_atomic_t g_order[64];
void Count(int) { g_count = g_count + 1; }
void Record(int signal) {
  g_order[g_count] = signal;
  g_count = g_count + 1;
}
siginfo_t g_info;
void KeepInfo(int, siginfo_t* info, void*) { g_info = *info; }

int ChildStatus(void (*body)()) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    for (int i = 1; i < 32; ++i) signal(i, SIG_DFL);
    body();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status;
}

TEST_CASE("a handler runs once for each delivery", "[signal]") {
  const ScopedAction action(SIGUSR1, Count);
  g_count = 0;
  for (int i = 1; i <= 100; ++i) {
    raise(SIGUSR1);
    REQUIRE(g_count == i);
  }
}

TEST_CASE("a blocked standard signal is kept once", "[signal]") {
  const ScopedAction action(SIGUSR1, Count);
  g_count = 0;
  {
    const ScopedBlock block{SIGUSR1};
    for (int i = 0; i < 5; ++i) raise(SIGUSR1);
    sigset_t pending;
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGUSR1) == 1);
    CHECK(g_count == 0);
  }
  CHECK(g_count == 1);
}

TEST_CASE("blocked real-time signals are queued in order with their values", "[signal]") {
  const ScopedBlock block{SIGRTMIN, SIGRTMIN + 1};
  for (int i = 0; i < 3; ++i) sigqueue(getpid(), SIGRTMIN + 1, sigval{.sival_int = i});
  sigqueue(getpid(), SIGRTMIN, sigval{.sival_int = 9});
  siginfo_t info{};
  const timespec now{0, 0};
  REQUIRE(sigtimedwait(block.set(), &info, &now) == SIGRTMIN);
  CHECK(info.si_value.sival_int == 9);
  CHECK(info.si_code == SI_QUEUE);
  CHECK(info.si_pid == getpid());
  for (int i = 0; i < 3; ++i) {
    REQUIRE(sigtimedwait(block.set(), &info, &now) == SIGRTMIN + 1);
    CHECK(info.si_value.sival_int == i);
  }
  CHECK(sigtimedwait(block.set(), &info, &now) == -1);
  CHECK(errno == EAGAIN);
}

TEST_CASE("RLIMIT_SIGPENDING bounds the queue", "[signal]") {
  const int status = ChildStatus([] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    const rlimit few{0, 0};
    setrlimit(RLIMIT_SIGPENDING, &few);
    if (sigqueue(getpid(), SIGRTMIN, sigval{}) == 0) _exit(1);
    if (errno != EAGAIN) _exit(2);
    if (kill(getpid(), SIGRTMIN) != 0) _exit(3);  // kill(2) always gets through.
  });
  CHECK(status == 0);
}

TEST_CASE("pending signals are delivered lowest number first", "[signal]") {
  const ScopedAction one(SIGUSR1, Record), two(SIGUSR2, Record), hup(SIGHUP, Record), winch(SIGWINCH, Record);
  g_count = 0;
  {
    const ScopedBlock block{SIGUSR1, SIGUSR2, SIGHUP, SIGWINCH};
    raise(SIGWINCH);
    raise(SIGUSR2);
    raise(SIGUSR1);
    raise(SIGHUP);
  }
  REQUIRE(g_count == 4);
  // Each frame is pushed on top of the one before: the highest number runs first.
  CHECK(g_order[0] == SIGWINCH);
  CHECK(g_order[1] == SIGUSR2);
  CHECK(g_order[2] == SIGUSR1);
  CHECK(g_order[3] == SIGHUP);
}

TEST_CASE("the handled signal and sa_mask are blocked in a handler, SA_NODEFER excepted", "[signal]") {
  static sigset_t seen;
  for (const bool nodefer : {false, true}) {
    struct sigaction action{}, old{};
    action.sa_handler = [](int) { sigprocmask(SIG_BLOCK, nullptr, &seen); };
    action.sa_flags = nodefer ? SA_NODEFER : 0;
    sigemptyset(&action.sa_mask);
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &action, &old);
    raise(SIGUSR1);
    CHECK(sigismember(&seen, SIGUSR1) == (nodefer ? 0 : 1));
    CHECK(sigismember(&seen, SIGUSR2) == 1);
    sigset_t after;
    sigprocmask(SIG_BLOCK, nullptr, &after);
    CHECK(sigismember(&after, SIGUSR2) == 0);
    sigaction(SIGUSR1, &old, nullptr);
  }
}

TEST_CASE("SA_RESETHAND gives one delivery", "[signal]") {
  const ScopedAction action(SIGUSR1, Count, static_cast<int>(SA_RESETHAND));
  raise(SIGUSR1);
  struct sigaction now{};
  sigaction(SIGUSR1, nullptr, &now);
  CHECK(now.sa_handler == SIG_DFL);
}

TEST_CASE("SIGKILL and SIGSTOP can be neither caught nor blocked", "[signal]") {
  for (const int signal : {SIGKILL, SIGSTOP}) {
    struct sigaction action{};
    action.sa_handler = SIG_IGN;
    CHECK(sigaction(signal, &action, nullptr) == -1);
    CHECK(errno == EINVAL);
  }
  sigset_t all, old, now;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &old);
  sigprocmask(SIG_SETMASK, nullptr, &now);
  sigprocmask(SIG_SETMASK, &old, nullptr);
  CHECK(sigismember(&now, SIGKILL) == 0);
  CHECK(sigismember(&now, SIGSTOP) == 0);
}

TEST_CASE("rt_sigaction wants eight bytes of mask and a real signal", "[signal]") {
  KernelAction action{};
  CHECK(syscall(SYS_rt_sigaction, SIGUSR1, nullptr, &action, 4) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_rt_sigaction, 65, nullptr, &action, 8) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_rt_sigaction, 0, nullptr, &action, 8) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_rt_sigaction, SIGUSR1, reinterpret_cast<void*>(8), nullptr, 8) == -1);
  CHECK(errno == EFAULT);
}

TEST_CASE("setting an action to ignore drops what is pending", "[signal]") {
  const ScopedBlock block{SIGUSR1};
  raise(SIGUSR1);
  signal(SIGUSR1, SIG_IGN);
  sigset_t pending;
  sigpending(&pending);
  CHECK(sigismember(&pending, SIGUSR1) == 0);
  signal(SIGUSR1, SIG_DFL);
}

TEST_CASE("kill tells who sent it", "[signal]") {
  const ScopedAction action(SIGUSR1, KeepInfo, 0);
  kill(getpid(), SIGUSR1);
  CHECK(g_info.si_signo == SIGUSR1);
  CHECK(g_info.si_code == SI_USER);
  CHECK(g_info.si_pid == getpid());
  CHECK(g_info.si_uid == getuid());
  raise(SIGUSR1);
  CHECK(g_info.si_code == SI_TKILL);
}

TEST_CASE("kill and tgkill check their target", "[signal]") {
  CHECK(kill(getpid(), 0) == 0);
  CHECK(kill(getpid(), 65) == -1);
  CHECK(errno == EINVAL);
  CHECK(kill(0x3ffffff, 0) == -1);
  CHECK(errno == ESRCH);
  CHECK(syscall(SYS_tgkill, getpid(), -1, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_tgkill, getpid() + 12345, syscall(SYS_gettid), 0) == -1);
  CHECK(errno == ESRCH);
  CHECK(syscall(SYS_tkill, syscall(SYS_gettid), 0) == 0);
}

TEST_CASE("rt_sigqueueinfo may not pretend to be the kernel to others", "[signal]") {
  const pid_t child = fork();
  if (child == 0) {
    while (true) pause();
  }
  siginfo_t info{};
  info.si_signo = SIGUSR1;
  info.si_code = SI_USER;
  CHECK(syscall(SYS_rt_sigqueueinfo, child, SIGUSR1, &info) == -1);
  CHECK(errno == EPERM);
  info.si_code = SI_QUEUE;
  info.si_value.sival_int = 77;
  CHECK(syscall(SYS_rt_sigqueueinfo, child, 0, &info) == 0);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST_CASE("a signal for the process goes to a thread that does not block it", "[signal][thread]") {
  const ScopedAction action(SIGUSR1, Count);
  g_count = 0;
  const ScopedBlock block{SIGUSR1};
  std::atomic<bool> ready{false};
  std::thread other([&ready] {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    ready = true;
    while (g_count == 0) usleep(1000);
  });
  while (!ready) usleep(100);
  kill(getpid(), SIGUSR1);
  other.join();
  CHECK(g_count == 1);
}

TEST_CASE("tgkill reaches the thread it names", "[signal][thread]") {
  static thread_local int hits = 0;
  struct sigaction action{}, old{};
  action.sa_handler = [](int) { ++hits; };
  sigaction(SIGUSR2, &action, &old);
  std::atomic<int> seen{0};
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) {
      seen = hits;
      usleep(500);
    }
  });
  for (int i = 0; i < 10; ++i) {
    const int before = seen;
    pthread_kill(other.native_handle(), SIGUSR2);
    while (seen == before) usleep(100);
  }
  stop = true;
  other.join();
  CHECK(seen >= 10);
  CHECK(hits == 0);
  sigaction(SIGUSR2, &old, nullptr);
}

TEST_CASE("a busy thread is interrupted by a signal", "[signal]") {
  const ScopedAction action(SIGALRM, Count);
  g_count = 0;
  const itimerval soon{{0, 0}, {0, 20000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  while (g_count == 0) {
  }
  CHECK(g_count == 1);
}

TEST_CASE("SA_RESTART restarts a read, otherwise it ends with EINTR", "[signal][restart]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  for (const bool restart : {false, true}) {
    const ScopedAction action(SIGALRM, Count, restart ? SA_RESTART : 0);
    g_count = 0;
    const itimerval soon{{0, 0}, {0, 20000}};
    setitimer(ITIMER_REAL, &soon, nullptr);
    std::thread writer([&] {
      while (g_count == 0) usleep(1000);
      usleep(20000);
      if (write(ends[1], "x", 1) != 1) abort();
    });
    sigset_t set;
    sigemptyset(&set);
    char byte = 0;
    // The alarm may go to either thread; send one to this one.
    const pthread_t self = pthread_self();
    std::thread sender([self] {
      usleep(10000);
      pthread_kill(self, SIGALRM);
    });
    const ssize_t got = read(ends[0], &byte, 1);
    const int error = errno;
    if (restart) {
      CHECK(got == 1);
    } else {
      CHECK(got == -1);
      CHECK(error == EINTR);
    }
    sender.join();
    writer.join();
    if (!restart) CHECK(read(ends[0], &byte, 1) == 1);
  }
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("nanosleep ends early and tells what remains", "[signal][restart]") {
  const ScopedAction action(SIGALRM, Count, SA_RESTART);
  const itimerval soon{{0, 0}, {0, 20000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  const timespec wanted{5, 0};
  timespec rest{};
  CHECK(nanosleep(&wanted, &rest) == -1);
  CHECK(errno == EINTR);
  CHECK(rest.tv_sec == 4);
}

TEST_CASE("a stop and continuation do not end a sleep", "[signal][restart][job_control]") {
  const pid_t child = fork();
  if (child == 0) {
    const timespec wanted{0, 150000000};
    _exit(nanosleep(&wanted, nullptr) == 0 ? 0 : 1);
  }
  usleep(20000);
  kill(child, SIGSTOP);
  int status = 0;
  REQUIRE(waitpid(child, &status, WUNTRACED) == child);
  kill(child, SIGCONT);
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("sigsuspend waits with another mask and puts the old one back", "[signal]") {
  const ScopedAction action(SIGUSR1, Count);
  g_count = 0;
  const ScopedBlock block{SIGUSR1};
  raise(SIGUSR1);
  sigset_t none;
  sigemptyset(&none);
  CHECK(sigsuspend(&none) == -1);
  CHECK(errno == EINTR);
  CHECK(g_count == 1);
  sigset_t now;
  sigprocmask(SIG_BLOCK, nullptr, &now);
  CHECK(sigismember(&now, SIGUSR1) == 1);
}

TEST_CASE("sigtimedwait times out, takes what comes, and is interrupted", "[signal]") {
  const ScopedBlock block{SIGUSR1};
  const timespec brief{0, 10000000};
  CHECK(sigtimedwait(block.set(), nullptr, &brief) == -1);
  CHECK(errno == EAGAIN);
  const pid_t self = getpid();
  std::thread sender([self] {
    usleep(10000);
    kill(self, SIGUSR1);
  });
  const timespec limit{5, 0};
  CHECK(sigtimedwait(block.set(), nullptr, &limit) == SIGUSR1);
  sender.join();
  const timespec wrong{0, 1000000000};
  CHECK(sigtimedwait(block.set(), nullptr, &wrong) == -1);
  CHECK(errno == EINVAL);
  const ScopedAction action(SIGALRM, Count);
  const itimerval soon{{0, 0}, {0, 10000}};
  setitimer(ITIMER_REAL, &soon, nullptr);
  CHECK(sigtimedwait(block.set(), nullptr, &limit) == -1);
  CHECK(errno == EINTR);
}

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
  auto* page = static_cast<volatile char*>(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
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
  auto* page = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
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

TEST_CASE("a division by zero is SIGFPE, a bad instruction SIGILL, int3 SIGTRAP", "[signal][fault]") {
  {
    const ScopedAction action(SIGFPE, OnFault, 0);
    if (sigsetjmp(g_jump, 1) == 0) asm volatile("xor %%ecx, %%ecx\n xor %%edx, %%edx\n mov $1, %%eax\n idiv %%ecx" ::: "eax", "ecx", "edx");
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
  for (const int signal : {SIGHUP, SIGTERM, SIGUSR1, SIGPIPE, SIGALRM, SIGABRT, SIGQUIT, SIGRTMIN + 3}) {
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
volatile bool g_frame_ok;

TEST_CASE("SA_ONSTACK runs on the alternate stack, which cannot change meanwhile", "[signal][altstack]") {
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

TEST_CASE("SS_AUTODISARM takes the alternate stack away while a handler runs", "[signal][altstack]") {
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
    asm volatile("mov $1, %%r8\n mov $1, %%r9\n mov $1, %%r10\n mov $1, %%r11\n pxor %%xmm0, %%xmm0\n" ::
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
      "cmp %%rbx, %%r15\n je 1f\n or $256, %0\n 1:\n movq %%xmm7, %%rcx\n cmp %%rbx, %%rcx\n je 1f\n or $512, %0\n 1:\n"
      "test %%rax, %%rax\n je 1f\n or $1024, %0\n 1:\n"
      : "=&S"(bad)
      : "D"(pid), "0"(tid)
      : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "xmm7", "memory", "cc");
  CHECK(bad == 0);
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
  const int stack = ChildStatus([] { asm volatile("mov $64, %%rsp\n mov $15, %%eax\n syscall" ::: "memory"); });
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
    auto* area = static_cast<char*>(mmap(nullptr, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
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

TEST_CASE("timers and many signals at once lose nothing", "[signal][stress]") {
  const ScopedAction action(SIGRTMIN + 2, Count, SA_RESTART);
  g_count = 0;
  constexpr int kSignals = 500;
  const pid_t self = getpid();
  const pid_t child = fork();
  if (child == 0) {
    for (int i = 0; i < kSignals; ++i) {
      while (sigqueue(self, SIGRTMIN + 2, sigval{}) != 0) usleep(100);
    }
    _exit(0);
  }
  int status = 0;
  while (waitpid(child, &status, 0) == -1 && errno == EINTR) {
  }
  for (int i = 0; i < 1000 && g_count < kSignals; ++i) usleep(1000);
  CHECK(g_count == kSignals);
}

}  // namespace
