// The devices of every container's /dev.

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <vector>

#include "catch2/catch.hpp"

namespace {

struct Device {
  int fd;
  explicit Device(const char* path, int flags = O_RDWR) : fd(open(path, flags)) {
    REQUIRE(fd >= 0);
  }
  ~Device() { close(fd); }
};

}  // namespace

TEST_CASE("devices have the numbers that everybody expects", "[dev]") {
  const struct {
    const char* path;
    unsigned major_number;
    unsigned minor_number;
  } expected[] = {{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
                  {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0}};
  for (const auto& device : expected) {
    CAPTURE(device.path);
    struct stat status = {};
    REQUIRE(stat(device.path, &status) == 0);
    CHECK(S_ISCHR(status.st_mode));
    CHECK((status.st_mode & 0777) == 0666);
    CHECK(major(status.st_rdev) == device.major_number);
    CHECK(minor(status.st_rdev) == device.minor_number);
  }
}

TEST_CASE("/dev/null swallows everything and gives nothing", "[dev]") {
  Device null("/dev/null");
  char buffer[8];
  CHECK(read(null.fd, buffer, sizeof(buffer)) == 0);
  CHECK(write(null.fd, "abc", 3) == 3);
  CHECK(lseek(null.fd, 100, SEEK_SET) == 0);
  pollfd polled = {null.fd, POLLIN | POLLOUT, 0};
  CHECK(poll(&polled, 1, 0) == 1);
  CHECK(polled.revents == (POLLIN | POLLOUT));
}

TEST_CASE("/dev/zero gives zeros without end", "[dev]") {
  Device zero("/dev/zero");
  std::vector<char> buffer(100000, 'x');
  REQUIRE(read(zero.fd, buffer.data(), buffer.size()) == static_cast<ssize_t>(buffer.size()));
  CHECK(std::all_of(buffer.begin(), buffer.end(), [](char c) { return c == 0; }));
  CHECK(write(zero.fd, "abc", 3) == 3);
}

TEST_CASE("a private mapping of /dev/zero is memory", "[dev]") {
  Device zero("/dev/zero");
  void* memory = mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero.fd, 0);
  REQUIRE(memory != MAP_FAILED);
  static_cast<char*>(memory)[5000] = 'x';
  CHECK(static_cast<char*>(memory)[0] == 0);
  CHECK(munmap(memory, 8192) == 0);
}

TEST_CASE("/dev/full is full", "[dev]") {
  Device full("/dev/full");
  char buffer[4] = {'x', 'x', 'x', 'x'};
  CHECK(read(full.fd, buffer, sizeof(buffer)) == 4);
  CHECK(buffer[3] == 0);
  CHECK(write(full.fd, "x", 1) == -1);
  CHECK(errno == ENOSPC);
}

TEST_CASE("/dev/urandom and /dev/random give different bytes each time", "[dev]") {
  const char* path = GENERATE("/dev/urandom", "/dev/random");
  Device random(path, O_RDONLY);
  std::vector<char> first(32);
  std::vector<char> second(32);
  REQUIRE(read(random.fd, first.data(), first.size()) == 32);
  REQUIRE(read(random.fd, second.data(), second.size()) == 32);
  CHECK(first != second);
}

TEST_CASE("/dev/fd and the standard names lead to descriptors", "[dev]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const std::string path = "/dev/fd/" + std::to_string(ends[1]);
  const int again = open(path.c_str(), O_WRONLY);
  REQUIRE(again >= 0);
  REQUIRE(write(again, "x", 1) == 1);
  char byte = 0;
  CHECK(read(ends[0], &byte, 1) == 1);
  close(again);
  close(ends[0]);
  close(ends[1]);
  char target[64] = {};
  REQUIRE(readlink("/dev/stdout", target, sizeof(target) - 1) > 0);
  CHECK(std::string(target) == "/proc/self/fd/1");
}

TEST_CASE("/dev/shm is a place for shared memory", "[dev]") {
  const std::string name = "/ravelin-" + std::to_string(getpid());
  const int fd = shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
  REQUIRE(fd >= 0);
  REQUIRE(ftruncate(fd, 4096) == 0);
  void* memory = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  REQUIRE(memory != MAP_FAILED);
  static_cast<char*>(memory)[7] = 'x';
  char byte = 0;
  CHECK(pread(fd, &byte, 1, 7) == 1);
  CHECK(byte == 'x');
  munmap(memory, 4096);
  CHECK(shm_unlink(name.c_str()) == 0);
  close(fd);
}

TEST_CASE("an unknown device number cannot be opened", "[dev]") {
  const std::string path = "/tmp/ravelin-node-" + std::to_string(getpid());
  if (mknod(path.c_str(), S_IFCHR | 0600, makedev(199, 77)) != 0) return;  // Needs CAP_MKNOD.
  CHECK(open(path.c_str(), O_RDONLY) == -1);
  CHECK((errno == ENXIO || errno == EACCES));
  unlink(path.c_str());
}
