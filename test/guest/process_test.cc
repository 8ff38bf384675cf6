// Birth and death of processes and threads: fork, vfork, clone, clone3, exit, reparenting, pidfds.

#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
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

constexpr size_t kStackBytes = 64 * 1024;

int WaitStatus(pid_t child) {
  int status = -1;
  while (waitpid(child, &status, 0) == -1 && errno == EINTR) {
  }
  return status;
}

// Runs `body` in a child, whose result is its exit status.
template <typename Body>
int InChild(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  const int status = WaitStatus(child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

long RawClone(unsigned long flags, void* stack, int* parent_tid, int* child_tid,
              unsigned long tls) {
  return syscall(SYS_clone, flags, stack, parent_tid, child_tid, tls);
}

TEST_CASE("fork gives the child a copy of the memory", "[process]") {
  volatile int value = 1;
  const pid_t child = fork();
  if (child == 0) {
    value = 2;
    _exit(value);
  }
  CHECK(WEXITSTATUS(WaitStatus(child)) == 2);
  CHECK(value == 1);
}

TEST_CASE("a child knows its parent and has an id of its own", "[process]") {
  const pid_t self = getpid();
  CHECK(InChild([self] { return getppid() == self && getpid() != self ? 0 : 1; }) == 0);
}

TEST_CASE("fork returns twice for hundreds of children", "[process]") {
  for (int i = 0; i < 200; ++i) REQUIRE(InChild([i] { return i & 0x7f; }) == (i & 0x7f));
}

TEST_CASE("vfork's parent sleeps until the child exits and sees its writes", "[process]") {
  static volatile int shared = 0;
  shared = 0;
  const pid_t child = vfork();
  if (child == 0) {
    usleep(30000);
    shared = 7;
    _exit(0);
  }
  CHECK(shared == 7);
  CHECK(WaitStatus(child) == 0);
}

TEST_CASE("vfork's parent goes on when the child calls execve", "[process]") {
  const pid_t child = vfork();
  if (child == 0) {
    execl("/proc/self/exe", "self", "--list-tags", static_cast<char*>(nullptr));
    _exit(99);
  }
  REQUIRE(child > 0);
  kill(child, SIGKILL);
  const int status = WaitStatus(child);
  CHECK(((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) ||
         (WIFEXITED(status) && WEXITSTATUS(status) != 99)));
}

TEST_CASE("a signal to vfork's parent waits for the child", "[process]") {
  static volatile sig_atomic_t seen = 0;
  static volatile int child_done = 0;
  seen = 0;
  child_done = 0;
  struct sigaction action{};
  action.sa_handler = [](int) { seen = child_done ? 1 : 2; };
  sigaction(SIGUSR1, &action, nullptr);
  const pid_t child = vfork();
  if (child == 0) {
    kill(getppid(), SIGUSR1);
    usleep(20000);
    child_done = 1;
    _exit(0);
  }
  CHECK(seen == 1);
  WaitStatus(child);
  signal(SIGUSR1, SIG_DFL);
}

TEST_CASE("clone writes thread ids where it is asked to", "[process][clone]") {
  int parent_tid = 0;
  auto* child_tid = static_cast<int*>(
      mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  const long child = RawClone(CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | SIGCHLD, nullptr,
                              &parent_tid, child_tid, 0);
  if (child == 0) _exit(*child_tid == getpid() ? 0 : 1);
  CHECK(parent_tid == child);
  CHECK(WaitStatus(static_cast<pid_t>(child)) == 0);
  CHECK(*child_tid == child);
  munmap(child_tid, 4096);
}

TEST_CASE("clone refuses flags that contradict each other", "[process][clone]") {
  const unsigned long flags =
      GENERATE(CLONE_THREAD | 0UL, CLONE_SIGHAND | 0UL, CLONE_THREAD | CLONE_SIGHAND | 0UL,
               CLONE_FS | CLONE_NEWNS | 0UL);
  CAPTURE(flags);
  CHECK(RawClone(flags, nullptr, nullptr, nullptr, 0) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("clone3 refuses what it does not know", "[process][clone]") {
  struct clone_args args{};
  CHECK(syscall(SYS_clone3, &args, 63) == -1);
  CHECK(errno == EINVAL);
  args.exit_signal = 65;
  CHECK(syscall(SYS_clone3, &args, sizeof(args)) == -1);
  CHECK(errno == EINVAL);
  args = {};
  args.stack = 4096;
  CHECK(syscall(SYS_clone3, &args, sizeof(args)) == -1);
  CHECK(errno == EINVAL);
  args = {};
  args.flags = uint64_t{1} << 60;
  CHECK(syscall(SYS_clone3, &args, sizeof(args)) == -1);
  CHECK(errno == EINVAL);
  struct {
    struct clone_args args;
    uint64_t beyond;
  } larger{};
  larger.beyond = 1;
  CHECK(syscall(SYS_clone3, &larger, sizeof(larger)) == -1);
  CHECK(errno == E2BIG);
}

TEST_CASE("clone3 makes a child with a pidfd", "[process][clone][pidfd]") {
  int pidfd = -1;
  struct clone_args args{};
  args.flags = CLONE_PIDFD;
  args.pidfd = reinterpret_cast<uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  const long child = syscall(SYS_clone3, &args, sizeof(args));
  if (child == 0) {
    usleep(10000);
    _exit(5);
  }
  REQUIRE(child > 0);
  REQUIRE(pidfd >= 0);
  CHECK((fcntl(pidfd, F_GETFD) & FD_CLOEXEC) != 0);
  struct pollfd poll_fd{pidfd, POLLIN, 0};
  CHECK(poll(&poll_fd, 1, 5000) == 1);
  siginfo_t info{};
  CHECK(waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd), &info, WEXITED) == 0);
  CHECK(info.si_pid == child);
  CHECK(info.si_status == 5);
  close(pidfd);
}

TEST_CASE("CLONE_CLEAR_SIGHAND resets handlers and keeps what is ignored", "[process][clone]") {
  signal(SIGUSR1, [](int) {});
  signal(SIGUSR2, SIG_IGN);
  struct clone_args args{};
  args.flags = CLONE_CLEAR_SIGHAND;
  args.exit_signal = SIGCHLD;
  const long child = syscall(SYS_clone3, &args, sizeof(args));
  if (child == 0) {
    struct sigaction one{}, two{};
    sigaction(SIGUSR1, nullptr, &one);
    sigaction(SIGUSR2, nullptr, &two);
    _exit(one.sa_handler == SIG_DFL && two.sa_handler == SIG_IGN ? 0 : 1);
  }
  CHECK(WaitStatus(static_cast<pid_t>(child)) == 0);
  signal(SIGUSR1, SIG_DFL);
  signal(SIGUSR2, SIG_DFL);
}

TEST_CASE("CLONE_PARENT makes a sibling", "[process][clone]") {
  CHECK(InChild([] {
          const pid_t middle = fork();
          if (middle == 0) {
            const long sibling = RawClone(CLONE_PARENT | SIGCHLD, nullptr, nullptr, nullptr, 0);
            if (sibling == 0) _exit(3);
            _exit(sibling > 0 ? 4 : 5);
          }
          int statuses = 0;
          int status = 0;
          while (wait(&status) > 0) statuses += WEXITSTATUS(status);
          return statuses;
        }) == 7);
}

TEST_CASE("CLONE_FILES shares descriptors, fork copies them", "[process][clone]") {
  const int fd = open("/dev/null", O_RDONLY);
  REQUIRE(fd >= 0);
  CHECK(InChild([fd] { return close(fd); }) == 0);
  CHECK(fcntl(fd, F_GETFD) >= 0);
  const long child = RawClone(CLONE_FILES | SIGCHLD, nullptr, nullptr, nullptr, 0);
  if (child == 0) _exit(close(fd));
  CHECK(WaitStatus(static_cast<pid_t>(child)) == 0);
  CHECK(fcntl(fd, F_GETFD) == -1);
}

TEST_CASE("a child that shares memory writes into its parent's", "[process][clone]") {
  std::vector<char> stack(kStackBytes);
  static volatile int value = 0;
  value = 0;
  const pid_t child = clone(
      [](void*) {
        value = 9;
        return 0;
      },
      stack.data() + stack.size(), CLONE_VM | SIGCHLD, nullptr);
  REQUIRE(child > 0);
  CHECK(WaitStatus(child) == 0);
  CHECK(value == 9);
}

TEST_CASE("threads have one process id and distinct thread ids", "[process][thread]") {
  std::vector<std::thread> threads;
  std::atomic<int> same{0}, distinct{0};
  const pid_t self = getpid();
  const pid_t main_tid = static_cast<pid_t>(syscall(SYS_gettid));
  for (int i = 0; i < 16; ++i) {
    threads.emplace_back([&] {
      if (getpid() == self) ++same;
      if (syscall(SYS_gettid) != main_tid) ++distinct;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(same == 16);
  CHECK(distinct == 16);
}

TEST_CASE("exit_group ends all threads at once", "[process][thread]") {
  CHECK(InChild([] {
          std::thread sleeper([] {
            while (true) pause();
          });
          std::thread spinner([] {
            for (std::atomic<unsigned> i{0};; ++i) {
            }
          });
          usleep(10000);
          _exit(17);
          return 0;
        }) == 17);
}

TEST_CASE("a process lives on after its first thread has left", "[process][thread]") {
  const pid_t child = fork();
  if (child == 0) {
    std::thread([] {
      usleep(30000);
      _exit(21);
    }).detach();
    syscall(SYS_exit, 3);
  }
  usleep(10000);
  int status = 0;
  CHECK(waitpid(child, &status, WNOHANG) == 0);
  CHECK(WEXITSTATUS(WaitStatus(child)) == 21);
}

TEST_CASE("a fatal signal to one thread ends the process", "[process][thread]") {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGTERM, SIG_DFL);  // Catch2 has a handler.
    std::thread other([] {
      while (true) pause();
    });
    usleep(5000);
    pthread_kill(other.native_handle(), SIGTERM);
    while (true) pause();
  }
  const int status = WaitStatus(child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGTERM);
}

TEST_CASE("an orphan gets a subreaper as its parent", "[process]") {
  CHECK(InChild([] {
          if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return 1;
          int ends[2];
          if (pipe(ends) != 0) return 2;
          const pid_t self = getpid();
          const pid_t middle = fork();
          if (middle == 0) {
            if (fork() == 0) {
              while (getppid() != self) usleep(1000);
              const char byte = 1;
              _exit(write(ends[1], &byte, 1) == 1 ? 33 : 34);
            }
            _exit(0);
          }
          WaitStatus(middle);
          char byte = 0;
          if (read(ends[0], &byte, 1) != 1) return 3;
          int status = 0;
          if (wait(&status) <= 0) return 4;
          return WEXITSTATUS(status);
        }) == 33);
}

TEST_CASE("a child gets its parent-death signal", "[process]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t middle = fork();
  if (middle == 0) {
    const pid_t parent = getpid();
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGUSR1);
      sigset_t set;
      sigemptyset(&set);
      sigaddset(&set, SIGUSR1);
      sigprocmask(SIG_BLOCK, &set, nullptr);
      char byte = 'r';
      if (write(ends[1], &byte, 1) != 1) _exit(1);
      siginfo_t info{};
      timespec limit{5, 0};
      byte = sigtimedwait(&set, &info, &limit) == SIGUSR1 ? 'd' : 'x';
      (void)parent;
      _exit(write(ends[1], &byte, 1) == 1 ? 0 : 1);
    }
    char byte = 0;
    _exit(read(ends[0], &byte, 1) == 1 && byte == 'r' ? 0 : 1);
  }
  REQUIRE(WaitStatus(middle) == 0);
  char byte = 0;
  REQUIRE(read(ends[0], &byte, 1) == 1);
  CHECK(byte == 'd');
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("pidfd_open refuses what is not a process", "[process][pidfd]") {
  CHECK(syscall(SYS_pidfd_open, -1, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_pidfd_open, getpid(), 12345) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("pidfd_getfd takes a descriptor out of a child", "[process][pidfd]") {
  int ends[2], sync[2];
  REQUIRE(pipe(ends) == 0);
  REQUIRE(pipe(sync) == 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte = 0;
    close(sync[1]);
    _exit(read(sync[0], &byte, 1) == 0 ? 0 : 1);
  }
  const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
  REQUIRE(pidfd >= 0);
  const int copy = static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, ends[1], 0));
  if (copy >= 0) {
    CHECK(write(copy, "x", 1) == 1);
    char byte = 0;
    CHECK(read(ends[0], &byte, 1) == 1);
    close(copy);
  } else {
    CHECK(errno == EPERM);  // Yama or a container's policy.
  }
  close(sync[1]);
  CHECK(WaitStatus(child) == 0);
  for (const int fd : {ends[0], ends[1], sync[0], pidfd}) close(fd);
}

TEST_CASE("set_tid_address' word is cleared and woken when a thread leaves", "[process][thread]") {
  static std::atomic<int> word;
  word = 1;
  std::thread thread([] {
    syscall(SYS_set_tid_address, &word);
    usleep(5000);
    syscall(SYS_exit, 0);
  });
  thread.detach();
  timespec limit{5, 0};
  while (word.load() != 0) {
    if (syscall(SYS_futex, &word, FUTEX_WAIT, 1, &limit, nullptr, 0) == -1 && errno == ETIMEDOUT)
      break;
  }
  CHECK(word.load() == 0);
}

TEST_CASE("unshare gives a thread descriptors of its own", "[process]") {
  const int fd = open("/dev/null", O_RDONLY);
  REQUIRE(fd >= 0);
  std::thread([fd] {
    if (unshare(CLONE_FILES) == 0) close(fd);
  }).join();
  CHECK(fcntl(fd, F_GETFD) >= 0);
  close(fd);
  CHECK(syscall(SYS_unshare, CLONE_PARENT) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("names of threads are theirs", "[process]") {
  char name[16] = {};
  std::thread([&name] {
    prctl(PR_SET_NAME, "worker-with-a-long-name");
    prctl(PR_GET_NAME, name);
  }).join();
  CHECK(std::strcmp(name, "worker-with-a-l") == 0);
  char own[16] = {};
  prctl(PR_GET_NAME, own);
  CHECK(std::strcmp(own, name) != 0);
}

}  // namespace
