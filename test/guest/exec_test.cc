// execve: what stays, what goes, what is refused. The program runs itself again: main() is
// Catch2's, so the second life is told by an environment variable that a constructor looks at
// before main.

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"

extern "C" char** environ;

namespace {

constexpr char kSelf[] = "/proc/self/exe";

// What the second life checks; its exit status is the answer.
int SecondLife(const char* what) {
  const std::string test = what;
  if (test == "exit7") return 7;
  if (test == "signals") {
    struct sigaction caught{}, ignored{};
    sigaction(SIGUSR1, nullptr, &caught);
    sigaction(SIGUSR2, nullptr, &ignored);
    sigset_t mask, pending;
    sigprocmask(SIG_BLOCK, nullptr, &mask);
    sigpending(&pending);
    stack_t stack{};
    sigaltstack(nullptr, &stack);
    if (caught.sa_handler != SIG_DFL) return 1;
    if (ignored.sa_handler != SIG_IGN) return 2;
    if (sigismember(&mask, SIGWINCH) != 1 || sigismember(&mask, SIGUSR1) != 0) return 3;
    if (sigismember(&pending, SIGWINCH) != 0 && sigismember(&pending, SIGHUP) != 1) return 4;
    if (stack.ss_flags != SS_DISABLE) return 5;
    return 0;
  }
  if (test == "say-and-wait") {
    if (write(201, "x", 1) != 1) return 1;
    pause();
    return 2;
  }
  if (test == "fds") {
    return fcntl(200, F_GETFD) == 0 && fcntl(201, F_GETFD) == -1 ? 0 : 1;
  }
  if (test == "name") {
    char name[16] = {};
    prctl(PR_GET_NAME, name);
    return std::strcmp(name, "exe") == 0 ? 0 : 1;
  }
  if (test == "leader") {
    const bool leader = syscall(SYS_gettid) == getpid() && getpid() == atoi(getenv("EXPECTED_PID"));
    return leader ? 0 : 1;
  }
  if (test == "timer") {
    itimerval left{};
    getitimer(ITIMER_REAL, &left);
    return left.it_value.tv_sec > 0 ? 0 : 1;
  }
  if (test == "limits") {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur == 300 ? 0 : 1;
  }
  if (test == "pdeath") {
    int signal = 0;
    prctl(PR_GET_PDEATHSIG, &signal);
    return signal == SIGUSR2 ? 0 : 1;
  }
  if (test == "euid1234") return geteuid() == 1234 && getuid() == 0 ? 0 : 1;
  if (test == "euid0") return geteuid() == 0 ? 0 : 1;
  if (test == "robust") {
    void* head = nullptr;
    size_t length = 0;
    syscall(SYS_get_robust_list, 0, &head, &length);
    return 0;
  }
  return 99;
}

__attribute__((constructor)) void MaybeSecondLife() {
  if (const char* what = getenv("SECOND_LIFE")) {
    // Without libc's buffers: they may not be set up.
    _exit(SecondLife(what));
  }
}

int RunAgain(const char* what, void (*before)() = nullptr) {
  const pid_t child = fork();
  if (child == 0) {
    if (before != nullptr) before();
    setenv("SECOND_LIFE", what, 1);
    setenv("EXPECTED_PID", std::to_string(getpid()).c_str(), 1);
    execl(kSelf, "self", static_cast<char*>(nullptr));
    _exit(98);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int ExecError(const char* path) {
  char* const argv[] = {const_cast<char*>("x"), nullptr};
  execv(path, argv);
  return errno;
}

TEST_CASE("execve starts another program in the same process", "[exec]") {
  CHECK(RunAgain("exit7") == 7);
}

TEST_CASE("handlers are reset, ignored signals and the mask stay", "[exec][signal]") {
  CHECK(RunAgain("signals", [] {
          signal(SIGUSR1, [](int) {});
          signal(SIGUSR2, SIG_IGN);
          sigset_t set;
          sigemptyset(&set);
          sigaddset(&set, SIGWINCH);
          sigaddset(&set, SIGHUP);
          sigprocmask(SIG_BLOCK, &set, nullptr);
          raise(SIGHUP);
          static char area[65536];
          const stack_t stack{area, 0, sizeof(area)};
          sigaltstack(&stack, nullptr);
        }) == 0);
}

TEST_CASE("close-on-exec descriptors are closed, others stay", "[exec]") {
  CHECK(RunAgain("fds", [] {
          const int fd = open("/dev/null", O_RDONLY);
          dup2(fd, 200);
          dup3(fd, 201, O_CLOEXEC);
        }) == 0);
}

TEST_CASE("the name becomes the file's", "[exec]") {
  CHECK(RunAgain("name", [] { prctl(PR_SET_NAME, "before"); }) == 0);
}

TEST_CASE("an interval timer, limits and the parent-death signal stay", "[exec]") {
  CHECK(RunAgain("timer", [] {
          const itimerval later{{0, 0}, {100, 0}};
          setitimer(ITIMER_REAL, &later, nullptr);
        }) == 0);
  CHECK(RunAgain("limits", [] {
          const rlimit limit{300, 400};
          setrlimit(RLIMIT_NOFILE, &limit);
        }) == 0);
  CHECK(RunAgain("pdeath", [] { prctl(PR_SET_PDEATHSIG, SIGUSR2); }) == 0);
  CHECK(RunAgain("robust") == 0);
}

TEST_CASE("execve by a thread ends the others and takes the leader's id", "[exec][thread]") {
  for (int round = 0; round < 5; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      setenv("SECOND_LIFE", "leader", 1);
      setenv("EXPECTED_PID", std::to_string(getpid()).c_str(), 1);
      for (int i = 0; i < 3; ++i) {
        std::thread([] {
          while (true) pause();
        }).detach();
      }
      std::thread([] {
        execl(kSelf, "self", static_cast<char*>(nullptr));
        _exit(98);
      }).detach();
      while (true) pause();
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(status == 0);
  }
}

TEST_CASE("what cannot be executed is refused", "[exec]") {
  char path[] = "/tmp/ravelin-exec-XXXXXX";
  const int fd = mkstemp(path);
  REQUIRE(fd >= 0);
  CHECK(ExecError("/nonexistent/program") == ENOENT);
  CHECK(ExecError("/tmp") == EACCES);
  CHECK(ExecError("/dev/null") == EACCES);
  CHECK(ExecError(path) == EACCES);  // No execute bit.
  REQUIRE(fchmod(fd, 0755) == 0);
  REQUIRE(write(fd, "not a program\n", 14) == 14);
  close(fd);
  CHECK(ExecError(path) == ENOEXEC);
  CHECK(ExecError((std::string(path) + "/x").c_str()) == ENOTDIR);
  CHECK(ExecError("") == ENOENT);
  unlink(path);
}

TEST_CASE("bad pointers and long strings are refused", "[exec]") {
  CHECK(syscall(SYS_execve, 8, nullptr, nullptr) == -1);
  CHECK(errno == EFAULT);
  CHECK(syscall(SYS_execve, kSelf, 8, nullptr) == -1);
  CHECK(errno == EFAULT);
  const std::string longer(131072, 'a');
  const char* const argv[] = {"x", longer.c_str(), nullptr};
  CHECK(syscall(SYS_execve, kSelf, argv, nullptr) == -1);
  CHECK(errno == E2BIG);
  const std::string name(5000, 'a');
  CHECK(syscall(SYS_execve, name.c_str(), argv, nullptr) == -1);
  CHECK(errno == ENAMETOOLONG);
}

TEST_CASE("a script runs its interpreter", "[exec]") {
  char self[4096] = {};
  REQUIRE(readlink(kSelf, self, sizeof(self) - 1) > 0);
  if (std::strlen(self) > 200) return;
  char path[] = "/tmp/ravelin-script-XXXXXX";
  const int fd = mkstemp(path);
  REQUIRE(fd >= 0);
  const std::string line = std::string("#! ") + self + " argument\n";
  REQUIRE(write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
  REQUIRE(fchmod(fd, 0755) == 0);
  close(fd);
  const pid_t child = fork();
  if (child == 0) {
    setenv("SECOND_LIFE", "exit7", 1);
    execl(path, path, static_cast<char*>(nullptr));
    _exit(98);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 7);
  unlink(path);
}

TEST_CASE("execveat runs an open file", "[exec]") {
  const int fd = open(kSelf, O_RDONLY | O_CLOEXEC);
  REQUIRE(fd >= 0);
  const pid_t child = fork();
  if (child == 0) {
    setenv("SECOND_LIFE", "exit7", 1);
    const char* const argv[] = {"x", nullptr};
    syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
    _exit(98);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 7);
  const char* const argv[] = {"x", nullptr};
  CHECK(syscall(SYS_execveat, fd, "", argv, environ, 0) == -1);
  CHECK(errno == ENOENT);
  CHECK(syscall(SYS_execveat, AT_FDCWD, kSelf, argv, environ, 0x8000) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_execveat, AT_FDCWD, kSelf, argv, environ, AT_SYMLINK_NOFOLLOW) == -1);
  CHECK(errno == ELOOP);
  close(fd);
}

// Copies this program to `path` and opens it as `flags` say.
void CopySelf(const char* path) {
  const int from = open(kSelf, O_RDONLY);
  const int to = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
  REQUIRE(from >= 0);
  REQUIRE(to >= 0);
  struct stat status{};
  REQUIRE(fstat(from, &status) == 0);
  for (off_t left = status.st_size; left > 0;) {
    const ssize_t got = sendfile(to, from, nullptr, static_cast<size_t>(left));
    REQUIRE(got > 0);
    left -= got;
  }
  close(from);
  close(to);
}

TEST_CASE("a file that is open for writing is not executed", "[exec][etxtbsy]") {
  char directory[] = "/tmp/ravelin-busy-XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const std::string path = std::string(directory) + "/program";
  CopySelf(path.c_str());
  const int fd = open(path.c_str(), O_WRONLY);
  REQUIRE(fd >= 0);
  CHECK(ExecError(path.c_str()) == ETXTBSY);
  close(fd);
  const int reader = open(path.c_str(), O_RDONLY);
  const pid_t child = fork();
  if (child == 0) {
    setenv("SECOND_LIFE", "exit7", 1);
    execl(path.c_str(), "x", static_cast<char*>(nullptr));
    _exit(98);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 7);
  close(reader);
  unlink(path.c_str());
  rmdir(directory);
}

TEST_CASE("a running program is not opened for writing", "[exec][etxtbsy]") {
  char directory[] = "/tmp/ravelin-busy-XXXXXX";
  REQUIRE(mkdtemp(directory) != nullptr);
  const std::string path = std::string(directory) + "/program";
  CopySelf(path.c_str());
  int pipe_fds[2];
  REQUIRE(pipe(pipe_fds) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(pipe_fds[1], 201);
    setenv("SECOND_LIFE", "say-and-wait", 1);
    execl(path.c_str(), "x", static_cast<char*>(nullptr));
    _exit(98);
  }
  char byte = 0;
  REQUIRE(read(pipe_fds[0], &byte, 1) == 1);
  CHECK(open(path.c_str(), O_WRONLY) == -1);
  CHECK(errno == ETXTBSY);
  CHECK(open(path.c_str(), O_RDONLY | O_TRUNC) == -1);
  CHECK(errno == ETXTBSY);
  CHECK(truncate(path.c_str(), 5) == -1);
  CHECK(errno == ETXTBSY);
  CHECK(chmod(path.c_str(), 0700) == 0);
  const std::string other = path + ".new";
  CHECK(rename(path.c_str(), other.c_str()) == 0);
  kill(child, SIGKILL);
  REQUIRE(waitpid(child, nullptr, 0) == child);
  // Its parent knows that it has gone: the file is free.
  const int fd = open(other.c_str(), O_WRONLY);
  CHECK(fd >= 0);
  close(fd);
  close(pipe_fds[0]);
  close(pipe_fds[1]);
  unlink(other.c_str());
  rmdir(directory);
}

TEST_CASE("a memory file is executed while it is open", "[exec][etxtbsy]") {
  const int memory = static_cast<int>(syscall(SYS_memfd_create, "program", 0));
  REQUIRE(memory >= 0);
  const int from = open(kSelf, O_RDONLY);
  struct stat status{};
  REQUIRE(fstat(from, &status) == 0);
  for (off_t left = status.st_size; left > 0;) {
    const ssize_t got = sendfile(memory, from, nullptr, static_cast<size_t>(left));
    REQUIRE(got > 0);
    left -= got;
  }
  close(from);
  const pid_t child = fork();
  if (child == 0) {
    setenv("SECOND_LIFE", "exit7", 1);
    const char* const argv[] = {"x", nullptr};
    syscall(SYS_execveat, memory, "", argv, environ, AT_EMPTY_PATH);
    _exit(98);
  }
  int result = 0;
  REQUIRE(waitpid(child, &result, 0) == child);
  CHECK(WEXITSTATUS(result) == 7);
  close(memory);
}

TEST_CASE("the set-user-ID bit counts, but not under no_new_privs", "[exec][cred]") {
  // Needs root, and a file system that honours the bit.
  if (geteuid() != 0) return;
  struct Shell {
    static int Ids(bool no_new_privs) {
      char path[] = "/tmp/ravelin-suid-XXXXXX";
      const int fd = mkstemp(path);
      const int self = open(kSelf, O_RDONLY);
      std::vector<char> buffer(1 << 20);
      ssize_t got = 0;
      while ((got = read(self, buffer.data(), buffer.size())) > 0) {
        if (write(fd, buffer.data(), static_cast<size_t>(got)) != got) return -1;
      }
      close(self);
      if (fchown(fd, 1234, 0) != 0 || fchmod(fd, 04755) != 0) return -1;
      close(fd);
      const pid_t child = fork();
      if (child == 0) {
        if (no_new_privs) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        setenv("SECOND_LIFE", no_new_privs ? "euid0" : "euid1234", 1);
        execl(path, path, static_cast<char*>(nullptr));
        _exit(98);
      }
      int status = 0;
      waitpid(child, &status, 0);
      unlink(path);
      return WEXITSTATUS(status);
    }
  };
  CHECK(Shell::Ids(false) == 0);
  CHECK(Shell::Ids(true) == 0);
}

}  // namespace
