#pragma once

// A scratch directory as working directory, and errors as values.

#include <fcntl.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <utility>

#include "catch2/catch.hpp"

namespace test {

// The value of a call, or minus its errno.
template <typename Value>
long Code(Value value) {
  return value < 0 ? -static_cast<long>(errno) : static_cast<long>(value);
}

// Made in /tmp and entered; left and removed at the end.
class Scratch {
 public:
  Scratch() {
    char name[] = "/tmp/ravelin-guest-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path_ = name;
    REQUIRE(chdir(name) == 0);
    umask(022);
  }
  ~Scratch() {
    if (chdir("/") == 0) {
      const std::string command = "rm -rf '" + path_ + "'";
      if (std::system(command.c_str()) != 0) std::abort();
    }
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Fd() {
    if (fd_ >= 0) close(fd_);
  }
  operator int() const { return fd_; }  // NOLINT: stands for the number in calls
  void Close() { close(std::exchange(fd_, -1)); }

 private:
  int fd_;
};

inline Fd Open(const std::string& path, int flags, mode_t mode = 0644) {
  const int fd = open(path.c_str(), flags, mode);
  INFO("open " << path);
  REQUIRE(fd >= 0);
  return Fd(fd);
}

inline void Make(const std::string& path, const std::string& content = "") {
  const Fd fd = Open(path, O_CREAT | O_WRONLY | O_TRUNC);
  REQUIRE(write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
}

inline std::string Content(const std::string& path) {
  const Fd fd = Open(path, O_RDONLY);
  std::string text;
  char buffer[4096];
  for (ssize_t got = read(fd, buffer, sizeof(buffer)); got > 0;
       got = read(fd, buffer, sizeof(buffer))) {
    text.append(buffer, static_cast<size_t>(got));
  }
  return text;
}

inline bool Exists(const std::string& path) {
  struct stat status{};
  return lstat(path.c_str(), &status) == 0;
}

inline struct stat Stat(const std::string& path) {
  struct stat status{};
  INFO("lstat " << path);
  REQUIRE(lstat(path.c_str(), &status) == 0);
  return status;
}

// Runs `body` in a child; its return value is the exit status.
template <typename Body>
int InChild(Body&& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  if (waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

// In a child without privileges, as the given user.
template <typename Body>
int AsUser(uid_t uid, Body&& body) {
  return InChild([&] {
    if (setgroups(0, nullptr) != 0 || setresgid(uid, uid, uid) != 0 ||
        setresuid(uid, uid, uid) != 0)
      return 120;
    return body();
  });
}

}  // namespace test
