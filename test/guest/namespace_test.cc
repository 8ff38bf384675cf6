// Namespaces (namespaces(7), user_namespaces(7), pid_namespaces(7)). Each case runs in a child.

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "catch2/catch.hpp"

namespace {

#define EXPECT(condition)                        \
  do {                                           \
    if (!(condition)) return __LINE__ % 251 + 1; \
  } while (false)

bool WriteText(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY);
  if (fd < 0) return false;
  const bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = errno;
  close(fd);
  errno = error;
  return written;
}
std::string ReadText(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}
std::string LinkOf(const std::string& path) {
  char text[128] = {};
  return readlink(path.c_str(), text, sizeof text - 1) > 0 ? text : "";
}

int StatusOf(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}
int InChild(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  return StatusOf(child);
}
// As root of a user namespace, with `more` namespaces.
int AsRootInside(int more, const std::function<int()>& body) {
  return InChild([&] {
    const uid_t uid = getuid();
    const gid_t gid = getgid();
    EXPECT(unshare(CLONE_NEWUSER | more) == 0);
    EXPECT(WriteText("/proc/self/setgroups", "deny"));
    EXPECT(WriteText("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1"));
    EXPECT(WriteText("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1"));
    return body();
  });
}

TEST_CASE("a user namespace has no names for ids until its map is written") {
  CHECK(InChild([] {
          const uid_t uid = getuid();
          EXPECT(unshare(CLONE_NEWUSER) == 0);
          EXPECT(getuid() == 65534 && geteuid() == 65534);
          EXPECT(ReadText("/proc/self/uid_map").empty());
          EXPECT(!WriteText("/proc/self/uid_map", "0 0\n") && errno == EINVAL);
          EXPECT(!WriteText("/proc/self/uid_map", "0 0 0\n") && errno == EINVAL);
          EXPECT(WriteText("/proc/self/uid_map", "7 " + std::to_string(uid) + " 1\n"));
          EXPECT(getuid() == 7);
          EXPECT(!WriteText("/proc/self/uid_map", "7 " + std::to_string(uid) + " 1\n"));
          EXPECT(errno == EPERM);
          EXPECT(ReadText("/proc/self/uid_map").find("7") != std::string::npos);
          return 0;
        }) == 0);
}

TEST_CASE("setgroups stays denied") {
  CHECK(AsRootInside(0, [] {
          EXPECT(ReadText("/proc/self/setgroups") == "deny\n");
          EXPECT(!WriteText("/proc/self/setgroups", "allow") && errno == EPERM);
          EXPECT(syscall(SYS_setgroups, 0, nullptr) == -1 && errno == EPERM);
          EXPECT(getuid() == 0 && getgid() == 0);
          EXPECT(setuid(5) == -1 && errno == EINVAL);
          return 0;
        }) == 0);
}

TEST_CASE("root inside is nobody outside") {
  CHECK(AsRootInside(0, [] {
          struct stat status = {};
          EXPECT(sethostname("x", 1) == -1 && errno == EPERM);
          EXPECT(mount("x", "/tmp", "tmpfs", 0, nullptr) == -1 && errno == EPERM);
          EXPECT(chroot("/") == 0);
          EXPECT(stat("/proc/self", &status) == 0 && status.st_uid == 0);
          return 0;
        }) == 0);
}

TEST_CASE("a name of its own") {
  CHECK(AsRootInside(CLONE_NEWUTS, [] {
          EXPECT(sethostname("inside", 6) == 0);
          utsname names = {};
          EXPECT(uname(&names) == 0 && std::string(names.nodename) == "inside");
          return 0;
        }) == 0);
  utsname names = {};
  REQUIRE(uname(&names) == 0);
  CHECK(std::string(names.nodename) != "inside");
}

TEST_CASE("the first child of a PID namespace is its init") {
  CHECK(AsRootInside(CLONE_NEWPID, [] {
          const pid_t own = getpid();
          int pipe_fds[2];
          EXPECT(pipe(pipe_fds) == 0);
          const pid_t init = fork();
          if (init == 0) {
            if (getpid() != 1 || getppid() != 0) _exit(2);
            const pid_t grandchild = fork();
            if (grandchild == 0) _exit(getpid() == 2 && getppid() == 1 ? 7 : 8);
            if (grandchild != 2) _exit(3);
            int status = 0;
            if (waitpid(-1, &status, 0) != 2 || WEXITSTATUS(status) != 7) _exit(4);
            // Signals without a handler do not reach init from inside.
            kill(1, SIGUSR2);
            kill(1, SIGKILL);
            if (kill(2, 0) != -1 || errno != ESRCH) _exit(5);
            if (setsid() != 1 || getsid(0) != 1 || getpgrp() != 1) _exit(6);
            _exit(0);
          }
          EXPECT(init > 1 && getpid() == own);
          EXPECT(StatusOf(init) == 0);
          // After it there is nobody to be the parent of others.
          EXPECT(fork() == -1 && errno == ENOMEM);
          return 0;
        }) == 0);
}

TEST_CASE("when init goes, all go") {
  CHECK(AsRootInside(CLONE_NEWPID, [] {
          int fds[2];
          EXPECT(pipe(fds) == 0);
          const pid_t init = fork();
          if (init == 0) {
            if (fork() == 0) {
              for (;;) pause();
            }
            _exit(0);
          }
          close(fds[1]);
          EXPECT(StatusOf(init) == 0);
          char byte = 0;
          // The other one held the write end, too.
          EXPECT(read(fds[0], &byte, 1) == 0);
          return 0;
        }) == 0);
}

TEST_CASE("proc shows the ids of the namespace that mounted it") {
  CHECK(AsRootInside(CLONE_NEWPID | CLONE_NEWNS, [] {
          int fds[2];
          EXPECT(pipe(fds) == 0);
          const pid_t init = fork();
          if (init == 0) {
            close(fds[1]);
            char byte = 0;
            if (read(fds[0], &byte, 1) != 0) _exit(1);
            if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) _exit(2);
            if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
              _exit(3);
            if (LinkOf("/proc/self") != "1") _exit(4);
            if (ReadText("/proc/self/status").find("\nPid:\t1\n") == std::string::npos) _exit(5);
            _exit(0);
          }
          const std::string seen = ReadText("/proc/" + std::to_string(init) + "/status");
          close(fds[1]);
          EXPECT(StatusOf(init) == 0);
          EXPECT(seen.find("\nNSpid:\t" + std::to_string(init) + "\t1\n") != std::string::npos);
          return 0;
        }) == 0);
}

TEST_CASE("links of /proc/PID/ns name namespaces, and setns enters them") {
  CHECK(AsRootInside(CLONE_NEWUTS, [] {
          const std::string outer = LinkOf("/proc/self/ns/uts");
          EXPECT(outer.starts_with("uts:["));
          EXPECT(sethostname("first", 5) == 0);
          const int fd = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
          EXPECT(fd >= 0);
          EXPECT(ioctl(fd, 0xb703) == CLONE_NEWUTS);
          EXPECT(unshare(CLONE_NEWUTS) == 0 && sethostname("second", 6) == 0);
          EXPECT(LinkOf("/proc/self/ns/uts") != outer);
          EXPECT(setns(fd, CLONE_NEWIPC) == -1 && errno == EINVAL);
          EXPECT(setns(fd, CLONE_NEWUTS) == 0);
          EXPECT(LinkOf("/proc/self/ns/uts") == outer);
          utsname names = {};
          EXPECT(uname(&names) == 0 && std::string(names.nodename) == "first");
          EXPECT(setns(0, 0) == -1);
          // Who owns it.
          const int owner = ioctl(fd, 0xb701);
          EXPECT(owner >= 0);
          struct stat a = {};
          struct stat b = {};
          EXPECT(fstat(owner, &a) == 0 && stat("/proc/self/ns/user", &b) == 0);
          EXPECT(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
          return 0;
        }) == 0);
}

TEST_CASE("a bound namespace outlives its tasks") {
  CHECK(AsRootInside(CLONE_NEWNS | CLONE_NEWUTS, [] {
          EXPECT(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
          EXPECT(mount("x", "/tmp", "tmpfs", 0, nullptr) == 0);
          const int file = open("/tmp/uts", O_CREAT | O_WRONLY, 0644);
          EXPECT(file >= 0 && close(file) == 0);
          EXPECT(unshare(CLONE_NEWUTS) == 0 && sethostname("kept", 4) == 0);
          EXPECT(mount("/proc/self/ns/uts", "/tmp/uts", nullptr, MS_BIND, nullptr) == 0);
          EXPECT(unshare(CLONE_NEWUTS) == 0 && sethostname("other", 5) == 0);
          const int fd = open("/tmp/uts", O_RDONLY);
          EXPECT(fd >= 0 && setns(fd, 0) == 0);
          utsname names = {};
          EXPECT(uname(&names) == 0 && std::string(names.nodename) == "kept");
          // Not the mount namespace in itself.
          const int other = open("/tmp/mnt", O_CREAT | O_WRONLY, 0644);
          EXPECT(other >= 0 && close(other) == 0);
          EXPECT(mount("/proc/self/ns/mnt", "/tmp/mnt", nullptr, MS_BIND, nullptr) == -1);
          EXPECT(errno == EINVAL);
          return 0;
        }) == 0);
}

TEST_CASE("mounts of a namespace are not seen outside, and what came in is locked") {
  CHECK(AsRootInside(CLONE_NEWNS, [] {
          EXPECT(mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0);
          EXPECT(umount2("/proc", MNT_DETACH) == -1 && errno == EINVAL);
          EXPECT(mount("x", "/tmp", "tmpfs", 0, nullptr) == 0);
          const int file = open("/tmp/seen-inside-only", O_CREAT | O_WRONLY, 0644);
          EXPECT(file >= 0);
          return 0;
        }) == 0);
  CHECK(access("/tmp/seen-inside-only", F_OK) == -1);
}

TEST_CASE("abstract names of sockets belong to a network namespace") {
  CHECK(AsRootInside(CLONE_NEWNET, [] {
          EXPECT(LinkOf("/proc/self/ns/net").starts_with("net:["));
          return 0;
        }) == 0);
}

TEST_CASE("clone3 gives the wanted id in a new PID namespace") {
  CHECK(AsRootInside(CLONE_NEWPID, [] {
          const pid_t init = fork();
          if (init == 0) {
            clone_args arguments = {};
            pid_t wanted = 42;
            arguments.exit_signal = SIGCHLD;
            arguments.set_tid = reinterpret_cast<uint64_t>(&wanted);
            arguments.set_tid_size = 1;
            const long child = syscall(SYS_clone3, &arguments, sizeof arguments);
            if (child == 0) _exit(getpid() == 42 ? 0 : 1);
            if (child != 42) _exit(2);
            _exit(StatusOf(42));
          }
          return StatusOf(init);
        }) == 0);
}

}  // namespace
