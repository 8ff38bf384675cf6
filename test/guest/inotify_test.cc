// inotify(7), memfd_create(2).

#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "catch2/catch.hpp"
#include "test/guest/events_support.h"

namespace {

using test::Fd;

struct Directory {
  Directory() { REQUIRE(mkdtemp(path.data()) != nullptr); }
  ~Directory() { (void)!system(("rm -rf " + path).c_str()); }
  std::string path = "/tmp/inotify_test_XXXXXX";
};

struct Event {
  int wd = 0;
  uint32_t mask = 0;
  uint32_t cookie = 0;
  std::string name;
};

std::vector<Event> Events(int fd) {
  alignas(inotify_event) char buffer[16384];
  const ssize_t bytes = read(fd, buffer, sizeof(buffer));
  std::vector<Event> events;
  for (ssize_t at = 0; at < bytes;) {
    inotify_event header{};
    std::memcpy(&header, buffer + at, sizeof(header));
    events.push_back({header.wd, header.mask, header.cookie,
                      header.len > 0 ? buffer + at + sizeof(header) : ""});
    at += static_cast<ssize_t>(sizeof(header) + header.len);
  }
  return events;
}

void WriteFile(const std::string& name) {
  const Fd file(open(name.c_str(), O_WRONLY | O_CREAT, 0600));
  REQUIRE(write(file, "x", 1) == 1);
}

}  // namespace

TEST_CASE("creation, change and removal in a directory are told", "[inotify]") {
  const Directory directory;
  const Fd inotify(inotify_init1(IN_NONBLOCK));
  const int watch = inotify_add_watch(inotify, directory.path.c_str(),
                                      IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_DELETE);
  REQUIRE(watch == 1);
  WriteFile(directory.path + "/one");
  mkdir((directory.path + "/sub").c_str(), 0700);
  unlink((directory.path + "/one").c_str());
  const std::vector<Event> events = Events(inotify);
  REQUIRE(events.size() == 5);
  CHECK(events[0].mask == IN_CREATE);
  CHECK(events[0].name == "one");
  CHECK(events[0].wd == watch);
  CHECK(events[1].mask == IN_MODIFY);
  CHECK(events[2].mask == IN_CLOSE_WRITE);
  CHECK(events[3].mask == (IN_CREATE | IN_ISDIR));
  CHECK(events[3].name == "sub");
  CHECK(events[4].mask == IN_DELETE);
  CHECK(Events(inotify).empty());
  CHECK(errno == EAGAIN);
}

TEST_CASE("the halves of a rename share a cookie", "[inotify]") {
  const Directory directory;
  WriteFile(directory.path + "/old");
  const Fd inotify(inotify_init1(IN_NONBLOCK));
  REQUIRE(inotify_add_watch(inotify, directory.path.c_str(), IN_MOVE) > 0);
  REQUIRE(rename((directory.path + "/old").c_str(), (directory.path + "/new").c_str()) == 0);
  const std::vector<Event> events = Events(inotify);
  REQUIRE(events.size() == 2);
  CHECK(events[0].mask == IN_MOVED_FROM);
  CHECK(events[0].name == "old");
  CHECK(events[1].mask == IN_MOVED_TO);
  CHECK(events[1].name == "new");
  CHECK(events[0].cookie != 0);
  CHECK(events[0].cookie == events[1].cookie);
}

TEST_CASE("a watched file tells of itself and of its end", "[inotify]") {
  const Directory directory;
  const std::string name = directory.path + "/file";
  WriteFile(name);
  const Fd inotify(inotify_init1(IN_NONBLOCK));
  REQUIRE(inotify_add_watch(inotify, name.c_str(),
                            IN_OPEN | IN_ACCESS | IN_CLOSE_NOWRITE | IN_ATTRIB | IN_DELETE_SELF) >
          0);
  {
    const Fd file(open(name.c_str(), O_RDONLY));
    char byte = 0;
    REQUIRE(read(file, &byte, 1) == 1);
  }
  chmod(name.c_str(), 0640);
  unlink(name.c_str());
  const std::vector<Event> events = Events(inotify);
  std::vector<uint32_t> masks;
  for (const Event& event : events) masks.push_back(event.mask);
  // The change of the link count is one with the chmod before it.
  CHECK(masks == std::vector<uint32_t>{IN_OPEN, IN_ACCESS, IN_CLOSE_NOWRITE, IN_ATTRIB,
                                       IN_DELETE_SELF, IN_IGNORED});
}

TEST_CASE("the same event twice in a row is told once", "[inotify]") {
  const Directory directory;
  const std::string name = directory.path + "/file";
  WriteFile(name);
  const Fd file(open(name.c_str(), O_WRONLY));
  const Fd inotify(inotify_init1(IN_NONBLOCK));
  REQUIRE(inotify_add_watch(inotify, name.c_str(), IN_MODIFY) > 0);
  for (int i = 0; i < 5; ++i) REQUIRE(write(file, "y", 1) == 1);
  CHECK(Events(inotify).size() == 1);
}

TEST_CASE("watches are set, joined, refused and removed", "[inotify]") {
  const Directory directory;
  const Fd inotify(inotify_init1(IN_NONBLOCK));
  const int watch = inotify_add_watch(inotify, directory.path.c_str(), IN_CREATE);
  CHECK(inotify_add_watch(inotify, directory.path.c_str(), IN_DELETE | IN_MASK_ADD) == watch);
  CHECK(inotify_add_watch(inotify, directory.path.c_str(), IN_DELETE | IN_MASK_CREATE) == -1);
  CHECK(errno == EEXIST);
  WriteFile(directory.path + "/a");
  unlink((directory.path + "/a").c_str());
  CHECK(Events(inotify).size() == 2);
  CHECK(inotify_rm_watch(inotify, watch) == 0);
  const std::vector<Event> events = Events(inotify);
  REQUIRE(events.size() == 1);
  CHECK(events[0].mask == IN_IGNORED);
  CHECK(inotify_rm_watch(inotify, watch) == -1);
  CHECK(errno == EINVAL);
  CHECK(inotify_add_watch(inotify, directory.path.c_str(), 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(inotify_add_watch(inotify, (directory.path + "/none").c_str(), IN_CREATE) == -1);
  CHECK(errno == ENOENT);
  CHECK(inotify_add_watch(0, directory.path.c_str(), IN_CREATE) == -1);
  CHECK(errno == EINVAL);
  WriteFile(directory.path + "/plain");
  CHECK(inotify_add_watch(inotify, (directory.path + "/plain").c_str(), IN_CREATE | IN_ONLYDIR) ==
        -1);
  CHECK(errno == ENOTDIR);
  CHECK(inotify_init1(1) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("a one-shot watch ends with its first event", "[inotify]") {
  const Directory directory;
  const Fd inotify(inotify_init1(IN_NONBLOCK));
  REQUIRE(inotify_add_watch(inotify, directory.path.c_str(), IN_CREATE | IN_ONESHOT) > 0);
  WriteFile(directory.path + "/a");
  WriteFile(directory.path + "/b");
  const std::vector<Event> events = Events(inotify);
  REQUIRE(events.size() == 2);
  CHECK(events[0].mask == IN_CREATE);
  CHECK(events[0].name == "a");
  CHECK(events[1].mask == IN_IGNORED);
}

TEST_CASE("an inotify descriptor can be polled and asked for its bytes", "[inotify]") {
  const Directory directory;
  const Fd inotify(inotify_init1(0));
  REQUIRE(inotify_add_watch(inotify, directory.path.c_str(), IN_CREATE) > 0);
  pollfd entry{inotify, POLLIN, 0};
  CHECK(poll(&entry, 1, 0) == 0);
  WriteFile(directory.path + "/name");
  CHECK(poll(&entry, 1, 1000) == 1);
  int bytes = 0;
  CHECK(ioctl(inotify, FIONREAD, &bytes) == 0);
  CHECK(bytes == 32);
  char small[16];
  CHECK(read(inotify, small, sizeof(small)) == -1);
  CHECK(errno == EINVAL);
  CHECK(Events(inotify).size() == 1);
}

TEST_CASE("a memfd is a file without a name", "[memfd]") {
  const Fd memory(memfd_create("thing", MFD_CLOEXEC));
  REQUIRE(memory >= 0);
  CHECK(fcntl(memory, F_GETFD) == FD_CLOEXEC);
  CHECK(ftruncate(memory, 8192) == 0);
  struct stat status{};
  REQUIRE(fstat(memory, &status) == 0);
  CHECK(S_ISREG(status.st_mode));
  CHECK(status.st_size == 8192);
  CHECK(status.st_nlink == 0);
  void* const page = mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  REQUIRE(page != MAP_FAILED);
  std::memcpy(page, "shared", 7);
  char text[8] = {};
  CHECK(pread(memory, text, 7, 0) == 7);
  CHECK(std::strcmp(text, "shared") == 0);
  munmap(page, 8192);
  char link[64] = {};
  CHECK(readlink(("/proc/self/fd/" + std::to_string(static_cast<int>(memory))).c_str(), link, 63) >
        0);
  CHECK(std::string(link) == "/memfd:thing (deleted)");
}

TEST_CASE("memfd_create refuses what it must", "[memfd]") {
  CHECK(memfd_create("x", 0x4000) == -1);
  CHECK(errno == EINVAL);
  CHECK(memfd_create(std::string(250, 'n').c_str(), 0) == -1);
  CHECK(errno == EINVAL);
  const Fd longest(memfd_create(std::string(249, 'n').c_str(), 0));
  CHECK(longest >= 0);
  CHECK(memfd_create(test::BadPointer<char>(), 0) == -1);
  CHECK(errno == EFAULT);
}

TEST_CASE("seals hold", "[memfd]") {
  const Fd memory(memfd_create("sealed", MFD_ALLOW_SEALING));
  REQUIRE(ftruncate(memory, 4096) == 0);
  CHECK(fcntl(memory, F_GET_SEALS) == 0);
  CHECK(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
  CHECK(ftruncate(memory, 0) == -1);
  CHECK(errno == EPERM);
  CHECK(ftruncate(memory, 8192) == -1);
  CHECK(errno == EPERM);
  CHECK(write(memory, "fine", 4) == 4);
  void* const page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  CHECK(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE) == -1);
  CHECK(errno == EBUSY);
  munmap(page, 4096);
  CHECK(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0);
  CHECK(write(memory, "not", 3) == -1);
  CHECK(errno == EPERM);
  CHECK(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == -1);
  CHECK(errno == EPERM);
  const Fd plain(memfd_create("plain", 0));
  CHECK(fcntl(plain, F_GET_SEALS) == F_SEAL_SEAL);
  CHECK(fcntl(plain, F_ADD_SEALS, F_SEAL_WRITE) == -1);
  CHECK(errno == EPERM);
  const Fd other(open("/proc/self/exe", O_RDONLY));
  CHECK(fcntl(other, F_GET_SEALS) == -1);
  CHECK(errno == EINVAL);
}
