// seccomp(2): filters that a program puts on itself.

#include <linux/audit.h>
#include <linux/bpf_common.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"

namespace {

using Program = std::vector<sock_filter>;

constexpr uint32_t kNumber = offsetof(seccomp_data, nr);
constexpr uint32_t kFirstArgument = offsetof(seccomp_data, args);

sock_filter Load(uint32_t offset) { return BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offset); }
sock_filter Return(uint32_t value) { return BPF_STMT(BPF_RET | BPF_K, value); }
sock_filter IfEqual(uint32_t k, uint8_t yes, uint8_t no) {
  return BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, k, yes, no);
}

// `verdict` for one system call, all others are allowed.
Program For(long number, uint32_t verdict) {
  return {Load(kNumber), IfEqual(static_cast<uint32_t>(number), 0, 1), Return(verdict),
          Return(SECCOMP_RET_ALLOW)};
}

int Install(Program program, unsigned flags = 0) {
  const sock_fprog wire{static_cast<unsigned short>(program.size()), program.data()};
  const long result = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &wire);
  return result < 0 ? -errno : static_cast<int>(result);
}

int InstallAlone(Program program, unsigned flags = 0) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -errno;
  return Install(std::move(program), flags);
}

// Filters cannot be taken off: each case runs in a child. The wait status.
int InChild(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit none{0, 0};
    setrlimit(RLIMIT_CORE, &none);
    syscall(SYS_exit_group, body());
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

bool ExitedWith(int status, int code) { return WIFEXITED(status) && WEXITSTATUS(status) == code; }
bool DiedOf(int status, int signal) { return WIFSIGNALED(status) && WTERMSIG(status) == signal; }

int StatusField(const char* name) {
  FILE* file = fopen("/proc/self/status", "r");
  char line[256];
  int value = -1;
  while (file != nullptr && fgets(line, sizeof(line), file) != nullptr) {
    if (std::strncmp(line, name, std::strlen(name)) == 0) value = atoi(line + std::strlen(name));
  }
  if (file != nullptr) fclose(file);
  return value;
}

siginfo_t trapped;
uint64_t rax_at_trap;
void OnTrap(int, siginfo_t* info, void* context) {
  trapped = *info;
  auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  rax_at_trap = static_cast<uint64_t>(registers[REG_RAX]);
  registers[REG_RAX] = 4242;
}

}  // namespace

TEST_CASE("a filter answers a call with an errno", "[seccomp]") {
  const int status = InChild([] {
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_ERRNO | 33)) != 0) return 1;
    if (syscall(SYS_getppid) != -1 || errno != 33) return 2;
    if (syscall(SYS_getuid) < 0) return 3;
    if (prctl(PR_GET_SECCOMP) != 2) return 4;
    return 0;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("calls that answer cheaply are filtered, too", "[seccomp]") {
  for (const long number : {SYS_getpid, SYS_gettid, SYS_getuid, SYS_sched_yield, SYS_getcpu}) {
    CAPTURE(number);
    const int status = InChild([number] {
      for (int i = 0; i < 1000; ++i) (void)syscall(number, nullptr, nullptr, nullptr);
      if (InstallAlone(For(number, SECCOMP_RET_ERRNO | 7)) != 0) return 1;
      for (int i = 0; i < 1000; ++i) {
        if (syscall(number, nullptr, nullptr, nullptr) != -1 || errno != 7) return 2;
      }
      return 0;
    });
    CHECK(ExitedWith(status, 0));
  }
}

TEST_CASE("errno 0 makes a call succeed without being made", "[seccomp]") {
  const int status = InChild([] {
    if (InstallAlone(For(SYS_close, SECCOMP_RET_ERRNO)) != 0) return 1;
    return syscall(SYS_close, 12345) == 0 ? 0 : 2;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("a filter sees the arguments", "[seccomp]") {
  const int status = InChild([] {
    const Program program = {Load(kNumber),
                             IfEqual(SYS_write, 0, 5),
                             Load(kFirstArgument),
                             IfEqual(0x89abcdef, 0, 3),
                             Load(kFirstArgument + 4),
                             IfEqual(0x01234567, 0, 1),
                             Return(SECCOMP_RET_ERRNO | 1),
                             Return(SECCOMP_RET_ALLOW)};
    if (InstallAlone(program) != 0) return 1;
    if (syscall(SYS_write, 0x0123456789abcdefUL, nullptr, 0) != -1 || errno != 1) return 2;
    if (syscall(SYS_write, 0x0123456889abcdefUL, nullptr, 0) != -1 || errno != EBADF) return 3;
    return 0;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("a filter knows the architecture and computes", "[seccomp]") {
  const int status = InChild([] {
    // arch * 2 / 2 ^ ... kept in memory and compared with itself.
    const Program program = {Load(offsetof(seccomp_data, arch)),
                             BPF_STMT(BPF_ST, 3),
                             BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 5),
                             BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, 5),
                             BPF_STMT(BPF_MISC | BPF_TAX, 0),
                             BPF_STMT(BPF_LD | BPF_MEM, 3),
                             BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, 1, 0),
                             Return(SECCOMP_RET_KILL_PROCESS),
                             IfEqual(AUDIT_ARCH_X86_64, 1, 0),
                             Return(SECCOMP_RET_KILL_PROCESS),
                             BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
                             IfEqual(sizeof(seccomp_data), 0, 3),
                             Load(kNumber),
                             IfEqual(SYS_getppid, 0, 1),
                             Return(SECCOMP_RET_ERRNO | 99),
                             Return(SECCOMP_RET_ALLOW)};
    if (InstallAlone(program) != 0) return 1;
    return syscall(SYS_getppid) == -1 && errno == 99 ? 0 : 2;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("the strictest of several filters decides, the newest among equals", "[seccomp]") {
  const int status = InChild([] {
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_ERRNO | 10)) != 0) return 1;
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_ALLOW)) != 0) return 2;
    if (syscall(SYS_getppid) != -1 || errno != 10) return 3;
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_ERRNO | 20)) != 0) return 4;
    if (syscall(SYS_getppid) != -1 || errno != 20) return 5;
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_LOG)) != 0) return 6;
    if (syscall(SYS_getppid) != -1 || errno != 20) return 7;
    return StatusField("Seccomp_filters:") == 4 && StatusField("Seccomp:") == 2 ? 0 : 8;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("RET_TRAP sends SIGSYS with the call's details", "[seccomp][signal]") {
  const int status = InChild([] {
    struct sigaction action{};
    action.sa_sigaction = OnTrap;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSYS, &action, nullptr);
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_TRAP | 77)) != 0) return 1;
    if (syscall(SYS_getppid) != 4242) return 2;
    if (trapped.si_signo != SIGSYS || trapped.si_code != 1 || trapped.si_errno != 77) return 3;
    if (trapped.si_syscall != SYS_getppid || trapped.si_arch != AUDIT_ARCH_X86_64) return 4;
    if (rax_at_trap != SYS_getppid) return 5;
    const auto* code = static_cast<const unsigned char*>(trapped.si_call_addr);
    return code[-2] == 0x0f && code[-1] == 0x05 ? 0 : 6;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("RET_TRAP ends a process that blocks or ignores SIGSYS", "[seccomp][signal]") {
  const int blocked = InChild([] {
    sigset_t set;
    sigfillset(&set);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_TRAP)) != 0) return 1;
    syscall(SYS_getppid);
    return 2;
  });
  CHECK(DiedOf(blocked, SIGSYS));
  const int ignored = InChild([] {
    signal(SIGSYS, SIG_IGN);
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_TRAP)) != 0) return 1;
    syscall(SYS_getppid);
    return 2;
  });
  CHECK(DiedOf(ignored, SIGSYS));
}

TEST_CASE("RET_KILL_PROCESS ends it whatever the handler", "[seccomp]") {
  const int status = InChild([] {
    signal(SIGSYS, [](int) {});
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_KILL_PROCESS)) != 0) return 1;
    std::thread other([] { syscall(SYS_getppid); });
    other.join();
    return 2;
  });
  CHECK(DiedOf(status, SIGSYS));
}

TEST_CASE("RET_KILL_THREAD ends one thread", "[seccomp][thread]") {
  const int several = InChild([] {
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_KILL_THREAD)) != 0) return 1;
    static std::atomic<int> reached{0};
    pthread_t thread;
    pthread_create(
        &thread, nullptr,
        [](void*) -> void* {
          reached = 1;
          syscall(SYS_getppid);
          reached = 2;
          return nullptr;
        },
        nullptr);
    pthread_join(thread, nullptr);  // clear_child_tid is honoured.
    return reached == 1 ? 0 : 2;
  });
  CHECK(ExitedWith(several, 0));
  const int alone = InChild([] {
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_KILL_THREAD)) != 0) return 1;
    syscall(SYS_getppid);
    return 2;
  });
  CHECK(DiedOf(alone, SIGSYS));
}

TEST_CASE("without a tracer or a listener the call does not exist", "[seccomp]") {
  const int status = InChild([] {
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_TRACE | 5)) != 0) return 1;
    return syscall(SYS_getppid) == -1 && errno == ENOSYS ? 0 : 2;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("children and programs keep the filters", "[seccomp]") {
  const int status = InChild([] {
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_ERRNO | 3)) != 0) return 1;
    const int child = InChild([] { return syscall(SYS_getppid) == -1 && errno == 3 ? 0 : 1; });
    if (!ExitedWith(child, 0)) return 2;
    const int program = InChild([] {
      execl("/bin/grep", "grep", "-q", "Seccomp:.*2", "/proc/self/status",
            static_cast<char*>(nullptr));
      return 9;
    });
    if (!ExitedWith(program, 0)) return 3;
    std::atomic<bool> filtered{false};
    std::thread([&] { filtered = syscall(SYS_getppid) == -1 && errno == 3; }).join();
    return filtered ? 0 : 4;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("TSYNC gives a filter to all threads", "[seccomp][thread]") {
  const int status = InChild([] {
    std::atomic<int> stage{0};
    std::atomic<bool> filtered{false}, no_new_privileges{false};
    std::thread other([&] {
      stage = 1;
      while (stage != 2) sched_yield();
      filtered = syscall(SYS_getppid) == -1 && errno == 8;
      no_new_privileges = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
    });
    while (stage != 1) sched_yield();
    const int result =
        InstallAlone(For(SYS_getppid, SECCOMP_RET_ERRNO | 8), SECCOMP_FILTER_FLAG_TSYNC);
    stage = 2;
    other.join();
    if (result != 0) return 1;
    return filtered && no_new_privileges ? 0 : 2;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("TSYNC names a thread that has other filters", "[seccomp][thread]") {
  const int status = InChild([] {
    std::atomic<int> stage{0};
    std::atomic<int> tid{0};
    std::thread other([&] {
      if (InstallAlone(For(SYS_getppid, SECCOMP_RET_ALLOW)) != 0) stage = 3;
      tid = static_cast<int>(syscall(SYS_gettid));
      stage = 1;
      while (stage != 2) sched_yield();
    });
    while (stage != 1) sched_yield();
    const int result =
        InstallAlone(For(SYS_getppid, SECCOMP_RET_ERRNO | 8), SECCOMP_FILTER_FLAG_TSYNC);
    const int esrch = InstallAlone(For(SYS_getppid, SECCOMP_RET_ERRNO | 8),
                                   SECCOMP_FILTER_FLAG_TSYNC | 16 /* TSYNC_ESRCH */);
    const bool unchanged = syscall(SYS_getppid) > 0 && prctl(PR_GET_SECCOMP) == 0;
    stage = 2;
    other.join();
    if (esrch != -ESRCH) return 1;
    return result == tid && unchanged ? 0 : 2;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("strict mode leaves four calls", "[seccomp]") {
  const int allowed = InChild([] {
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) return 1;
    if (syscall(SYS_read, -1, nullptr, 0) != -1 || errno != EBADF) return 2;
    syscall(SYS_exit, 6);
    return 3;
  });
  CHECK(ExitedWith(allowed, 6));
  const int refused = InChild([] {
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, nullptr) != 0) return 1;
    syscall(SYS_getpid);
    return 2;
  });
  CHECK(DiedOf(refused, SIGKILL));
}

TEST_CASE("modes do not change into each other", "[seccomp]") {
  const int status = InChild([] {
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_ALLOW)) != 0) return 1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == -1 && errno == EINVAL ? 0 : 2;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("programs that might run astray are refused", "[seccomp]") {
  const Program bad[] = {
      {},
      {Load(kNumber)},                                       // Runs over its end.
      {BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0), Return(0)},      // Jumps over its end.
      {IfEqual(1, 1, 0), Return(0)},                         // So does a branch.
      {Load(64), Return(0)},                                 // Reads past the data.
      {Load(2), Return(0)},                                  // Reads off a word.
      {BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), Return(0)},    // Half a word.
      {BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), Return(0)},    // Indirectly.
      {BPF_STMT(BPF_LD | BPF_MEM, 0), Return(0)},            // What was not written.
      {BPF_STMT(BPF_ST, 16), Return(0)},                     // Outside the memory.
      {BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), Return(0)},   // Divides by zero.
      {BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), Return(0)},  // Shifts all away.
      {BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), Return(0)},   // Not for seccomp.
      {BPF_STMT(0xffff, 0), Return(0)},                      // No instruction.
      {IfEqual(1, 0, 1), BPF_STMT(BPF_ST, 1), BPF_STMT(BPF_LD | BPF_MEM, 1), Return(0)},
  };
  for (const Program& program : bad) {
    CAPTURE(&program - bad);
    const int status = InChild([&] { return InstallAlone(program) == -EINVAL ? 0 : 1; });
    CHECK(ExitedWith(status, 0));
  }
  const int long_one = InChild([] {
    Program program(4096, Load(kNumber));
    program.back() = Return(SECCOMP_RET_ALLOW);
    if (InstallAlone(program) != 0) return 1;
    program.push_back(Return(SECCOMP_RET_ALLOW));
    if (InstallAlone(program) != -EINVAL) return 2;
    program.pop_back();
    for (int i = 0; i < 6; ++i) {
      if (InstallAlone(program) != 0) return 3;
    }
    return InstallAlone(program) == -ENOMEM ? 0 : 4;
  });
  CHECK(ExitedWith(long_one, 0));
}

TEST_CASE("a division by zero at run time kills", "[seccomp]") {
  const int status = InChild([] {
    const Program program = {BPF_STMT(BPF_LDX | BPF_IMM, 0), Load(kNumber),
                             IfEqual(SYS_getppid, 0, 1), BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0),
                             Return(SECCOMP_RET_ALLOW)};
    if (InstallAlone(program) != 0) return 1;
    syscall(SYS_getppid);
    return 2;
  });
  CHECK(DiedOf(status, SIGSYS));
}

TEST_CASE("arguments of seccomp are checked", "[seccomp]") {
  CHECK(syscall(SYS_seccomp, 99, 0, nullptr) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, nullptr) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0x1000, nullptr) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, 8) == -1);
  CHECK(errno == EFAULT);
  const sock_fprog bad{2, reinterpret_cast<sock_filter*>(8)};
  const int status = InChild([&] {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &bad) == -1 && errno == EFAULT ? 0 : 1;
  });
  CHECK(ExitedWith(status, 0));
  uint32_t action = SECCOMP_RET_TRAP;
  CHECK(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0);
  action = 0x12340000;
  CHECK(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == -1);
  CHECK(errno == EOPNOTSUPP);
  CHECK(prctl(PR_SET_SECCOMP, 3, 0, 0, 0) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("a filter needs no_new_privs or a privilege", "[seccomp][cred]") {
  const int status = InChild([] {
    if (geteuid() == 0 && syscall(SYS_setresuid, 65534, 65534, 65534) != 0) return 0;
    return Install(For(SYS_getppid, SECCOMP_RET_ALLOW)) == -EACCES ? 0 : 1;
  });
  CHECK(ExitedWith(status, 0));
}

TEST_CASE("an interrupted call is filtered again when it is restarted", "[seccomp][signal]") {
  const int status = InChild([] {
    int fds[2];
    if (pipe(fds) != 0) return 1;
    struct sigaction action{};
    action.sa_handler = [](int) {};
    action.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &action, nullptr);
    if (InstallAlone(For(SYS_getppid, SECCOMP_RET_ERRNO | 1)) != 0) return 2;
    std::thread writer([&] {
      usleep(100000);
      (void)!write(fds[1], "x", 1);
    });
    ualarm(20000, 0);
    char byte = 0;
    const ssize_t got = read(fds[0], &byte, 1);
    writer.join();
    return got == 1 ? 0 : 3;
  });
  CHECK(ExitedWith(status, 0));
}
