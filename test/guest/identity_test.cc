// What a program is told about itself, asked right after each change: by system call instructions,
// and by calls that jump to the sandbox's entry for rewritten call sites, where there is one. The
// sandbox may answer the latter without leaving the program.

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <thread>

#include "catch2/catch.hpp"

namespace {

sigjmp_buf g_no_entry;

// Ravelin's systrap platform. Elsewhere nothing is mapped there, or what is there is no entry.
long Jump(long number, long a = 0, long b = 0, long c = 0, long d = 0) {
  long result = 0;
  register long fourth asm("r10") = d;
  asm volatile(
      "leaq 1f(%%rip), %%rcx\n\t"
      "movabsq $0x7fff00010000, %%r11\n\t"
      "jmp *%%r11\n"
      "1:"
      : "=a"(result)
      : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
      : "rcx", "r11", "memory", "cc");
  return result;
}

void NoEntry(int) { siglongjmp(g_no_entry, 1); }

bool HasEntry() {
  static const bool result = [] {
    struct sigaction action{};
    struct sigaction old[2];
    action.sa_handler = &NoEntry;
    sigaction(SIGSEGV, &action, &old[0]);
    sigaction(SIGILL, &action, &old[1]);
    const bool works = sigsetjmp(g_no_entry, 1) == 0 && Jump(SYS_getpid) == syscall(SYS_getpid);
    sigaction(SIGSEGV, &old[0], nullptr);
    sigaction(SIGILL, &old[1], nullptr);
    return works;
  }();
  return result;
}

// By the entry if there is one.
long Ask(long number, long a = 0, long b = 0, long c = 0, long d = 0) {
  if (HasEntry()) return Jump(number, a, b, c, d);
  const long result = syscall(number, a, b, c, d);
  return result == -1 ? -errno : result;
}

// Both ways tell the same, about everything.
bool Consistent() {
  for (long number : {SYS_getpid, SYS_gettid, SYS_getppid, SYS_getpgrp, SYS_getuid, SYS_geteuid,
                      SYS_getgid, SYS_getegid}) {
    if (Ask(number) != syscall(number)) return false;
  }
  return true;
}

// Memory that children share.
struct Shared {
  std::atomic<int> step{0};
  std::atomic<long> value{0};
  std::atomic<long> other{0};
};

Shared& NewShared() {
  void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  return *new (memory) Shared;
}

void AwaitStep(Shared& shared, int step) {
  while (shared.step.load() < step) sched_yield();
}

int ExitOf(pid_t child) {
  int status = -1;
  while (waitpid(child, &status, 0) == -1 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

template <typename Body>
int InChild(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  return ExitOf(child);
}

const char kAfterExec[] = "IDENTITY_TEST_AFTER_EXEC";

// The second half of a test, in the program that execve made.
__attribute__((constructor)) void AfterExec() {
  const char* expected = getenv(kAfterExec);
  if (expected == nullptr) return;
  const long pid = strtol(expected, nullptr, 10);
  _exit(Ask(SYS_getpid) == pid && Ask(SYS_gettid) == pid && Consistent() ? 0 : 1);
}

TEST_CASE("a new process knows its ids at once", "[identity]") {
  REQUIRE(Consistent());
  const long self = Ask(SYS_getpid);
  for (int round = 0; round < 20; round++) {
    Shared& shared = NewShared();
    const pid_t child = fork();
    if (child == 0) {
      shared.value = Ask(SYS_getpid);
      shared.other = Ask(SYS_gettid);
      _exit(Ask(SYS_getppid) == self && Consistent() ? 0 : 1);
    }
    CHECK(ExitOf(child) == 0);
    CHECK(shared.value == child);
    CHECK(shared.other == child);
    CHECK(Ask(SYS_getpid) == self);
    munmap(&shared, 4096);
  }
}

TEST_CASE("a child of vfork knows its ids, and its parent keeps its own", "[identity]") {
  const long self = Ask(SYS_getpid);
  Shared& shared = NewShared();
  const pid_t child = vfork();
  if (child == 0) {
    shared.value = Ask(SYS_getpid);
    shared.other = Ask(SYS_getppid);
    _exit(0);
  }
  CHECK(ExitOf(child) == 0);
  CHECK(shared.value == child);
  CHECK(shared.other == self);
  CHECK(Ask(SYS_getpid) == self);
  CHECK(Ask(SYS_gettid) == self);
  munmap(&shared, 4096);
}

TEST_CASE("threads differ by tid only", "[identity]") {
  const long self = Ask(SYS_getpid);
  for (int round = 0; round < 20; round++) {
    long pid = 0, tid = 0, again = 0;
    bool same = false;
    std::thread thread([&] {
      pid = Ask(SYS_getpid);
      tid = Ask(SYS_gettid);
      again = syscall(SYS_gettid);
      same = Consistent();
    });
    thread.join();
    CHECK(pid == self);
    CHECK(tid != self);
    CHECK(tid == again);
    CHECK(same);
  }
  CHECK(Ask(SYS_gettid) == self);
}

TEST_CASE("process groups and sessions are known when the call that made them is over",
          "[identity]") {
  CHECK(InChild([] {
          if (setpgid(0, 0) != 0 || Ask(SYS_getpgrp) != Ask(SYS_getpid)) return 1;
          const pid_t child = fork();
          if (child == 0) {
            if (Ask(SYS_getpgrp) != Ask(SYS_getppid)) _exit(2);
            if (setsid() != Ask(SYS_getpid) || Ask(SYS_getpgrp) != Ask(SYS_getpid)) _exit(3);
            _exit(Consistent() ? 0 : 4);
          }
          return ExitOf(child);
        }) == 0);
  // Another process moves it while it computes.
  Shared& shared = NewShared();
  const pid_t child = fork();
  if (child == 0) {
    shared.step = 1;
    while (shared.step.load() != 2) {
    }
    shared.value = Ask(SYS_getpgrp);
    _exit(0);
  }
  AwaitStep(shared, 1);
  REQUIRE(setpgid(child, child) == 0);
  shared.step = 2;
  CHECK(ExitOf(child) == 0);
  CHECK(shared.value == child);
  munmap(&shared, 4096);
}

TEST_CASE("an orphan knows its new parent as soon as the old one has been waited for",
          "[identity]") {
  CHECK(InChild([] {
          if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return 1;
          Shared& shared = NewShared();
          const pid_t middle = fork();
          if (middle == 0) {
            if (fork() == 0) {
              shared.value = Ask(SYS_getppid);
              shared.step = 1;
              while (shared.step.load() != 2) {
              }
              shared.other = Ask(SYS_getppid);
              _exit(Consistent() ? 0 : 2);
            }
            AwaitStep(shared, 1);
            _exit(0);
          }
          if (ExitOf(middle) != 0) return 3;
          shared.step = 2;
          int status = 0;
          if (wait(&status) < 0 || status != 0) return 4;
          if (shared.value != middle) return 5;
          return shared.other == Ask(SYS_getpid) ? 0 : 6;
        }) == 0);
}

TEST_CASE("user and group ids are a thread's own and follow each change", "[identity]") {
  if (geteuid() != 0) return;  // Others may not change them.
  CHECK(InChild([] {
          if (syscall(SYS_setresgid, 5, 6, 7) != 0) return 1;
          if (Ask(SYS_getgid) != 5 || Ask(SYS_getegid) != 6) return 2;
          int in_thread = 0;
          std::thread thread([&] {
            if (syscall(SYS_setresuid, 1, 2, 0) != 0 || Ask(SYS_getuid) != 1 ||
                Ask(SYS_geteuid) != 2 || !Consistent()) {
              in_thread = 3;
            }
            // Back to the saved one, without the capability.
            if (syscall(SYS_setresuid, -1, 0, -1) != 0 || Ask(SYS_geteuid) != 0) in_thread = 4;
          });
          thread.join();
          if (in_thread != 0) return in_thread;
          if (Ask(SYS_getuid) != 0 || Ask(SYS_geteuid) != 0) return 5;
          if (syscall(SYS_setuid, 0xfffffffe) != 0) return 6;
          if (Ask(SYS_getuid) != 0xfffffffe || !Consistent()) return 7;
          const pid_t child = fork();
          if (child == 0) _exit(Ask(SYS_getuid) == 0xfffffffe && Ask(SYS_getgid) == 5 ? 0 : 8);
          return ExitOf(child);
        }) == 0);
}

TEST_CASE("execve by a thread makes it the leader", "[identity]") {
  CHECK(InChild([] {
          char number[32];
          snprintf(number, sizeof(number), "%ld", Ask(SYS_getpid));
          setenv(kAfterExec, number, 1);
          std::thread thread([] {
            execl("/proc/self/exe", "identity", nullptr);
            _exit(9);
          });
          thread.join();
          return 10;
        }) == 0);
}

TEST_CASE("a futex wait looks at the word first", "[identity][futex]") {
  alignas(8) uint32_t word[2] = {5, 5};
  const long address = reinterpret_cast<long>(word);
  for (int i = 0; i < 3; i++) {
    CHECK(Ask(SYS_futex, address, FUTEX_WAIT, 4) == -EAGAIN);
    CHECK(Ask(SYS_futex, address, FUTEX_WAIT_PRIVATE, 4) == -EAGAIN);
    CHECK(Ask(SYS_futex, address + 1, FUTEX_WAIT, 4) == -EINVAL);
    CHECK(Ask(SYS_futex, 8, FUTEX_WAIT, 4) == -EFAULT);
    const timespec bad{0, -1};
    CHECK(Ask(SYS_futex, address, FUTEX_WAIT, 4, reinterpret_cast<long>(&bad)) == -EINVAL);
    const timespec soon{0, 1000};
    CHECK(Ask(SYS_futex, address, FUTEX_WAIT, 5, reinterpret_cast<long>(&soon)) == -ETIMEDOUT);
    CHECK(Ask(SYS_sched_yield) == 0);
  }
}

std::atomic<int> g_signals;

TEST_CASE("signals to a thread that asks all the time are all handled", "[identity][signal]") {
  struct sigaction action{};
  action.sa_handler = [](int) {
    g_signals++;
    if (Ask(SYS_getpid) != syscall(SYS_getpid)) abort();
  };
  struct sigaction old{};
  REQUIRE(sigaction(SIGUSR1, &action, &old) == 0);
  std::atomic<bool> ready = false;
  std::atomic<bool> stop = false;
  bool good = true;
  const long self = Ask(SYS_getpid);
  std::thread asker([&] {
    const long tid = syscall(SYS_gettid);
    ready = true;
    while (!stop) good = good && Ask(SYS_gettid) == tid && Ask(SYS_getpid) == self;
  });
  while (!ready) sched_yield();
  for (int i = 1; i <= 300; i++) {
    REQUIRE(pthread_kill(asker.native_handle(), SIGUSR1) == 0);
    while (g_signals < i) sched_yield();
  }
  stop = true;
  asker.join();
  CHECK(good);
  CHECK(g_signals == 300);
  sigaction(SIGUSR1, &old, nullptr);
}

}  // namespace
