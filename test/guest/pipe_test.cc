// pipe(7), fifo(7), splice(2), tee(2), vmsplice(2).

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "catch2/catch.hpp"
#include "test/guest/events_support.h"

namespace {

using test::Child;
using test::Fd;
using test::PipeFds;

short Ready(int fd, short events = POLLIN | POLLOUT | POLLRDHUP) {
  pollfd entry{fd, events, 0};
  poll(&entry, 1, 0);
  return entry.revents;
}
std::string Take(int fd, size_t bytes = 65536) {
  std::string text(bytes, '\0');
  const ssize_t count = read(fd, text.data(), bytes);
  text.resize(count > 0 ? static_cast<size_t>(count) : 0);
  return text;
}
size_t FillUp(int fd, size_t chunk) {
  const std::string data(chunk, 'x');
  size_t total = 0;
  while (true) {
    const ssize_t count = write(fd, data.data(), chunk);
    if (count < 0) return total;
    total += static_cast<size_t>(count);
  }
}

struct Directory {
  Directory() { REQUIRE(mkdtemp(path.data()) != nullptr); }
  ~Directory() { (void)!system(("rm -rf " + path).c_str()); }
  std::string path = "/tmp/pipe_test_XXXXXX";
};

}  // namespace

TEST_CASE("what goes in comes out, and then the end", "[pipe]") {
  PipeFds ends;
  CHECK(write(ends.writer, "hello", 5) == 5);
  CHECK(write(ends.writer, "", 0) == 0);
  CHECK(Take(ends.reader, 3) == "hel");
  CHECK(Take(ends.reader) == "lo");
  ends.writer.Reset();
  char byte = 0;
  CHECK(read(ends.reader, &byte, 1) == 0);
}

TEST_CASE("the wrong end is refused", "[pipe]") {
  PipeFds ends;
  char byte = 0;
  CHECK(read(ends.writer, &byte, 1) == -1);
  CHECK(errno == EBADF);
  CHECK(write(ends.reader, &byte, 1) == -1);
  CHECK(errno == EBADF);
  CHECK(lseek(ends.reader, 0, SEEK_CUR) == -1);
  CHECK(errno == ESPIPE);
  CHECK(pread(ends.reader, &byte, 1, 0) == -1);
  CHECK(errno == ESPIPE);
}

TEST_CASE("pipe2 refuses unknown flags and bad memory", "[pipe]") {
  int fds[2];
  CHECK(pipe2(fds, O_APPEND) == -1);
  CHECK(errno == EINVAL);
  CHECK(pipe(test::BadPointer<int>()) == -1);
  CHECK(errno == EFAULT);
}

TEST_CASE("flags of the ends are as asked", "[pipe]") {
  PipeFds ends(O_NONBLOCK | O_CLOEXEC);
  CHECK((fcntl(ends.reader, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(fcntl(ends.reader, F_GETFL) == (O_RDONLY | O_NONBLOCK));
  CHECK(fcntl(ends.writer, F_GETFL) == (O_WRONLY | O_NONBLOCK));
  struct stat status{};
  REQUIRE(fstat(ends.reader, &status) == 0);
  CHECK(S_ISFIFO(status.st_mode));
  CHECK((status.st_mode & 0777) == 0600);
}

TEST_CASE("a pipe takes 64 KiB in bytes, 16 pieces of 4000", "[pipe]") {
  PipeFds bytes(O_NONBLOCK);
  CHECK(FillUp(bytes.writer, 1) == 65536);
  CHECK(errno == EAGAIN);
  PipeFds pieces(O_NONBLOCK);
  CHECK(FillUp(pieces.writer, 4000) == 16 * 4000);
  PipeFds big(O_NONBLOCK);
  CHECK(FillUp(big.writer, 100'000) == 65536);
}

TEST_CASE("a write of up to PIPE_BUF is all or nothing", "[pipe]") {
  PipeFds ends(O_NONBLOCK);
  FillUp(ends.writer, 4096);
  std::array<char, 4096> page{};
  CHECK(Take(ends.reader, 4095).size() == 4095);
  CHECK(write(ends.writer, page.data(), 4096) == -1);
  CHECK(errno == EAGAIN);
  CHECK(Take(ends.reader, 1).size() == 1);
  CHECK(write(ends.writer, page.data(), 4096) == 4096);
}

TEST_CASE("writing without readers is EPIPE and a signal", "[pipe]") {
  PipeFds ends;
  ends.reader.Reset();
  const test::CountSignals counter(SIGPIPE);
  CHECK(write(ends.writer, "x", 1) == -1);
  CHECK(errno == EPIPE);
  CHECK(test::g_signals == 1);
}

TEST_CASE("an empty pipe says EAGAIN without blocking", "[pipe]") {
  PipeFds ends(O_NONBLOCK);
  char byte = 0;
  CHECK(read(ends.reader, &byte, 1) == -1);
  CHECK(errno == EAGAIN);
  CHECK(read(ends.reader, &byte, 0) == 0);
}

TEST_CASE("a reader sleeps until something comes", "[pipe]") {
  PipeFds ends;
  Child child([&] {
    test::SleepMs(50);
    return write(ends.writer, "late", 4) == 4 ? 0 : 1;
  });
  CHECK(Take(ends.reader) == "late");
  CHECK(child.Wait() == 0);
}

TEST_CASE("a long blocking write is taken as a whole", "[pipe]") {
  PipeFds ends;
  constexpr size_t kBytes = 1 << 20;
  Child child([&] {
    const std::string data(kBytes, 'y');
    return write(ends.writer, data.data(), data.size()) == static_cast<ssize_t>(kBytes) ? 0 : 1;
  });
  ends.writer.Reset();
  size_t total = 0;
  while (true) {
    const std::string piece = Take(ends.reader, 10'000);
    if (piece.empty()) break;
    total += piece.size();
  }
  CHECK(total == kBytes);
  CHECK(child.Wait() == 0);
}

TEST_CASE("a signal cuts a long write short, or starts it again", "[pipe]") {
  PipeFds ends;
  const test::CountSignals counter(SIGUSR1, SA_RESTART);
  {
    const test::SignalSoon soon(SIGUSR1, 50);
    const std::string data(100'000, 'z');
    CHECK(write(ends.writer, data.data(), data.size()) == 65536);
  }
  CHECK(test::g_signals == 1);
  PipeFds empty;
  const test::CountSignals no_restart(SIGUSR2, 0);
  const test::SignalSoon soon(SIGUSR2, 50);
  char byte = 0;
  CHECK(read(empty.reader, &byte, 1) == -1);
  CHECK(errno == EINTR);
}

TEST_CASE("readiness follows the content", "[pipe][poll]") {
  PipeFds ends(O_NONBLOCK);
  CHECK(Ready(ends.reader) == 0);
  CHECK(Ready(ends.writer) == POLLOUT);
  CHECK(write(ends.writer, "x", 1) == 1);
  CHECK(Ready(ends.reader) == POLLIN);
  FillUp(ends.writer, 4096);
  CHECK(Ready(ends.writer) == 0);
  ends.writer.Reset();
  CHECK(Ready(ends.reader) == (POLLIN | POLLHUP));
  while (!Take(ends.reader).empty()) {
  }
  CHECK(Ready(ends.reader) == POLLHUP);
  PipeFds other;
  other.reader.Reset();
  CHECK(Ready(other.writer) == (POLLOUT | POLLERR));
}

TEST_CASE("FIONREAD counts what waits", "[pipe]") {
  PipeFds ends;
  int count = -1;
  CHECK(ioctl(ends.reader, FIONREAD, &count) == 0);
  CHECK(count == 0);
  CHECK(write(ends.writer, "12345", 5) == 5);
  CHECK(ioctl(ends.writer, FIONREAD, &count) == 0);
  CHECK(count == 5);
}

TEST_CASE("the capacity can be changed", "[pipe]") {
  PipeFds ends(O_NONBLOCK);
  CHECK(fcntl(ends.reader, F_GETPIPE_SZ) == 65536);
  CHECK(fcntl(ends.reader, F_SETPIPE_SZ, 5000) == 8192);
  CHECK(FillUp(ends.writer, 4096) == 8192);
  CHECK(fcntl(ends.reader, F_SETPIPE_SZ, 4096) == -1);
  CHECK(errno == EBUSY);
  CHECK(fcntl(ends.reader, F_SETPIPE_SZ, 1 << 20) == 1 << 20);
  CHECK(FillUp(ends.writer, 4096) == (1 << 20) - 8192);
  const Fd file(open("/dev/null", O_RDWR));
  CHECK(fcntl(file, F_GETPIPE_SZ) == -1);
  CHECK(errno == EBADF);
}

TEST_CASE("packets keep their limits", "[pipe]") {
  PipeFds ends(O_DIRECT | O_NONBLOCK);
  CHECK(write(ends.writer, "one", 3) == 3);
  CHECK(write(ends.writer, "twotwo", 6) == 6);
  CHECK(Take(ends.reader) == "one");
  CHECK(Take(ends.reader, 3) == "two");
  char byte = 0;
  CHECK(read(ends.reader, &byte, 1) == -1);
  CHECK(errno == EAGAIN);
}

TEST_CASE("a pipe can be opened again through /proc", "[pipe][proc]") {
  PipeFds ends;
  const std::string name = "/proc/self/fd/" + std::to_string(static_cast<int>(ends.reader));
  std::array<char, 64> link{};
  CHECK(readlink(name.c_str(), link.data(), link.size() - 1) > 0);
  CHECK(std::string(link.data()).substr(0, 6) == "pipe:[");
  const Fd writer(open(name.c_str(), O_WRONLY));
  REQUIRE(writer >= 0);
  CHECK(write(writer, "again", 5) == 5);
  CHECK(Take(ends.reader) == "again");
}

TEST_CASE("a fifo waits for its other end", "[pipe][fifo]") {
  const Directory directory;
  const std::string name = directory.path + "/fifo";
  REQUIRE(mkfifo(name.c_str(), 0600) == 0);
  CHECK(open(name.c_str(), O_WRONLY | O_NONBLOCK) == -1);
  CHECK(errno == ENXIO);
  Child child([&] {
    test::SleepMs(50);
    const Fd writer(open(name.c_str(), O_WRONLY));
    return write(writer, "through", 7) == 7 ? 0 : 1;
  });
  const int64_t before = test::NowMs();
  const Fd reader(open(name.c_str(), O_RDONLY));
  CHECK(test::NowMs() - before >= 40);
  REQUIRE(reader >= 0);
  CHECK(Take(reader) == "through");
  CHECK(Take(reader).empty());
  CHECK(child.Wait() == 0);
}

TEST_CASE("a fifo opened without waiting hangs up only after a writer", "[pipe][fifo]") {
  const Directory directory;
  const std::string name = directory.path + "/fifo";
  REQUIRE(mkfifo(name.c_str(), 0600) == 0);
  const Fd reader(open(name.c_str(), O_RDONLY | O_NONBLOCK));
  REQUIRE(reader >= 0);
  CHECK(Ready(reader) == 0);
  char byte = 0;
  CHECK(read(reader, &byte, 1) == 0);
  {
    const Fd writer(open(name.c_str(), O_WRONLY));
    REQUIRE(writer >= 0);
    CHECK(read(reader, &byte, 1) == -1);
    CHECK(errno == EAGAIN);
  }
  CHECK(Ready(reader) == POLLHUP);
  const Fd both(open(name.c_str(), O_RDWR));
  REQUIRE(both >= 0);
  CHECK(Ready(reader) == 0);
}

TEST_CASE("the open of a fifo is interrupted by a signal", "[pipe][fifo]") {
  const Directory directory;
  const std::string name = directory.path + "/fifo";
  REQUIRE(mkfifo(name.c_str(), 0600) == 0);
  const test::CountSignals counter(SIGUSR1);
  const test::SignalSoon soon(SIGUSR1, 50);
  CHECK(open(name.c_str(), O_RDONLY) == -1);
  CHECK(errno == EINTR);
}

TEST_CASE("splice moves between a pipe and a file", "[pipe][splice]") {
  const Directory directory;
  const Fd file(open((directory.path + "/file").c_str(), O_RDWR | O_CREAT, 0600));
  REQUIRE(write(file, "0123456789", 10) == 10);
  PipeFds ends;
  loff_t offset = 2;
  CHECK(splice(file, &offset, ends.writer, nullptr, 5, 0) == 5);
  CHECK(offset == 7);
  CHECK(lseek(file, 0, SEEK_CUR) == 10);
  offset = 20;
  CHECK(splice(ends.reader, nullptr, file, &offset, 3, 0) == 3);
  CHECK(Take(ends.reader) == "56");
  std::array<char, 4> got{};
  CHECK(pread(file, got.data(), 4, 20) == 3);
  CHECK(std::string(got.data()) == "234");
  offset = 100;
  CHECK(splice(file, &offset, ends.writer, nullptr, 5, 0) == 0);
}

TEST_CASE("splice refuses what it must", "[pipe][splice]") {
  const Directory directory;
  const Fd file(open((directory.path + "/file").c_str(), O_RDWR | O_CREAT, 0600));
  const Fd append(open((directory.path + "/file").c_str(), O_WRONLY | O_APPEND));
  PipeFds ends(O_NONBLOCK);
  loff_t offset = 0;
  CHECK(splice(file, nullptr, append, nullptr, 1, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(splice(ends.reader, nullptr, append, nullptr, 1, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(splice(ends.reader, &offset, file, nullptr, 1, 0) == -1);
  CHECK(errno == ESPIPE);
  CHECK(splice(ends.reader, nullptr, ends.writer, nullptr, 1, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(splice(ends.reader, nullptr, file, nullptr, 1, 0) == -1);
  CHECK(errno == EAGAIN);
  CHECK(splice(ends.reader, nullptr, file, nullptr, 0, 0) == 0);
  CHECK(splice(ends.writer, nullptr, file, nullptr, 1, 0) == -1);
  CHECK(errno == EBADF);
}

TEST_CASE("tee copies and leaves, splice takes", "[pipe][splice]") {
  PipeFds from, to;
  CHECK(write(from.writer, "abcdef", 6) == 6);
  CHECK(tee(from.reader, to.writer, 4, 0) == 4);
  CHECK(Take(to.reader) == "abcd");
  CHECK(splice(from.reader, nullptr, to.writer, nullptr, 100, 0) == 6);
  CHECK(Take(to.reader) == "abcdef");
  CHECK(tee(from.reader, from.writer, 4, 0) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("vmsplice gathers and scatters", "[pipe][splice]") {
  PipeFds ends;
  char first[] = "abc", second[] = "defg";
  const iovec out[] = {{first, 3}, {second, 4}};
  CHECK(vmsplice(ends.writer, out, 2, 0) == 7);
  char got[8] = {};
  const iovec in[] = {{got, 2}, {got + 2, 5}};
  CHECK(vmsplice(ends.reader, in, 2, 0) == 7);
  CHECK(std::strcmp(got, "abcdefg") == 0);
  const Fd file(open("/dev/null", O_RDWR));
  CHECK(vmsplice(file, out, 2, 0) == -1);
  CHECK(errno == EBADF);
}
