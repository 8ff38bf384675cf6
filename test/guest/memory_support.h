#pragma once

// What the memory tests share: temporary files, children whose end is looked at, mappings that go
// away.

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

#include "catch2/catch.hpp"

namespace guest {

inline constexpr size_t kPage = 4096;

// The errno of a call that returns -1 or MAP_FAILED; 0 if it succeeded.
inline int ErrorOf(long result) { return result == -1 ? errno : 0; }
inline int ErrorOf(void* result) { return result == MAP_FAILED ? errno : 0; }

struct Map {
  explicit Map(size_t bytes, int protection = PROT_READ | PROT_WRITE,
               int flags = MAP_PRIVATE | MAP_ANONYMOUS, int fd = -1, off_t offset = 0)
      : size(bytes),
        at(static_cast<uint8_t*>(mmap(nullptr, bytes, protection, flags, fd, offset))) {
    REQUIRE(at != MAP_FAILED);
  }
  ~Map() { munmap(at, size); }
  Map(const Map&) = delete;
  Map& operator=(const Map&) = delete;
  uint8_t& operator[](size_t index) { return at[index]; }
  uint8_t* page(size_t number) { return at + number * kPage; }

  size_t size;
  uint8_t* at;
};

// An unlinked file with `bytes` bytes of 'f'.
struct TemporaryFile {
  explicit TemporaryFile(size_t bytes) {
    char name[] = "/tmp/ravelin-memory-XXXXXX";
    fd = mkstemp(name);
    REQUIRE(fd >= 0);
    unlink(name);
    const std::string content(bytes, 'f');
    REQUIRE(write(fd, content.data(), bytes) == static_cast<ssize_t>(bytes));
  }
  ~TemporaryFile() { close(fd); }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  char At(off_t offset) const {
    char byte = 0;
    return pread(fd, &byte, 1, offset) == 1 ? byte : '\0';
  }

  int fd = -1;
};

// How a child that runs `body` ends: its exit status, or minus the signal. The child has default
// signal actions: Catch2's handlers would turn a fault into a report.
template <typename Body>
int RunChild(Body body) {
  const pid_t child = fork();
  if (child == 0) {
    for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGABRT}) {
      ::signal(signal, SIG_DFL);
    }
    _exit(body());
  }
  REQUIRE(child > 0);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

inline int LoadFails(const volatile uint8_t* at) {
  return RunChild([at] { return *at & 0; });
}
inline int StoreFails(volatile uint8_t* at) {
  return RunChild([at] {
    *at = 1;
    return 0;
  });
}

}  // namespace guest
