// /dev, devpts and pseudo-terminals through the system calls.

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <string>
#include <thread>

#include "catch2/catch.hpp"
#include "sentry/fs/dev/devices.h"
#include "sentry/fs/devpts/devpts.h"
#include "sentry/fs/host/host_file.h"
#include "sentry/tty/console_pump.h"
#include "sentry/tty/termios.h"
#include "test/support/test_task.h"

namespace {

using test::TestTask;

constexpr uint64_t kArgument = TestTask::kPage;
constexpr uint64_t kText = TestTask::kArea;

// A task with a /dev.
struct DevTask : TestTask {
  std::shared_ptr<sentry::DevPts> dev_pts = sentry::DevPts::Make(kernel());

  DevTask() {
    REQUIRE(Call(SYS_mkdir, PokeString(kText, "/dev"), 0755) == 0);
    sentry::Vfs& vfs = kernel().vfs();
    const sentry::Path dev = vfs.WalkAsKernel("/dev").value();
    REQUIRE(sentry::PopulateDev(*dev.dentry->inode(), false).ok());
    const sentry::Path pts = vfs.WalkAsKernel("/dev/pts").value();
    REQUIRE(vfs.MountAt(pts, dev_pts, "devpts", 0).ok());
    vfs.SetCharacterDeviceOpener(sentry::NewDeviceOpener(dev_pts, nullptr));
  }
  int64_t Open(const std::string& path, int flags) {
    return Call(SYS_openat, AT_FDCWD, PokeString(kText, path), flags, 0);
  }
  int64_t Ioctl(int64_t fd, uint32_t command, uint64_t argument = kArgument) {
    return Call(SYS_ioctl, fd, command, argument);
  }
  int64_t Write(int64_t fd, const std::string& text) {
    PokeBytes(kText, std::as_bytes(std::span(text)));
    return Call(SYS_write, fd, kText, text.size());
  }
  std::string Read(int64_t fd, size_t size = 4096) {
    const int64_t count = Call(SYS_read, fd, kText, size);
    if (count < 0) return "error " + std::to_string(-count);
    std::string text(static_cast<size_t>(count), '\0');
    PeekBytes(kText, std::as_writable_bytes(std::span(text)));
    return text;
  }
};

struct Pty {
  int64_t master;
  int64_t slave;
  explicit Pty(DevTask& task) {
    master = task.Open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
    REQUIRE(master >= 0);
    task.Poke(kArgument, int32_t{0});
    REQUIRE(task.Ioctl(master, TIOCSPTLCK) == 0);
    REQUIRE(task.Ioctl(master, TIOCGPTN) == 0);
    const auto number = task.Peek<uint32_t>(kArgument);
    slave = task.Open("/dev/pts/" + std::to_string(number), O_RDWR | O_NOCTTY | O_NONBLOCK);
    REQUIRE(slave >= 0);
  }
};

TEST_CASE("the devices of /dev open by their numbers", "[dev]") {
  DevTask task;
  const int64_t zero = task.Open("/dev/zero", O_RDONLY);
  CHECK(task.Read(zero, 3) == std::string(3, '\0'));
  const int64_t null = task.Open("/dev/null", O_RDWR);
  CHECK(task.Read(null).empty());
  CHECK(task.Write(null, "abc") == 3);
  const int64_t full = task.Open("/dev/full", O_RDWR);
  CHECK(task.Write(full, "abc") == -ENOSPC);
  CHECK(task.Open("/dev/tty", O_RDWR) == -ENXIO);
  CHECK(task.Call(SYS_mknod, task.PokeString(kText, "/strange"), S_IFCHR | 0600, 0x1234) == 0);
  CHECK(task.Open("/strange", O_RDWR) == -ENXIO);
}

TEST_CASE("a pty carries a typed line to the program and its output back", "[tty]") {
  DevTask task;
  const Pty pty(task);
  CHECK(task.Write(pty.master, "hi\r") == 3);
  CHECK(task.Read(pty.slave) == "hi\n");
  CHECK(task.Write(pty.slave, "out\n") == 4);
  CHECK(task.Read(pty.master) == "hi\r\nout\r\n");
  CHECK(task.Read(pty.master) == "error 11");
}

TEST_CASE("a slave's name goes with its master", "[tty]") {
  DevTask task;
  const Pty pty(task);
  CHECK(task.Call(SYS_close, pty.master) == 0);
  CHECK(task.Open("/dev/pts/0", O_RDWR) == -ENOENT);
  CHECK(task.Read(pty.slave).empty());
  CHECK(task.Write(pty.slave, "x") == -EIO);
}

TEST_CASE("the number of terminals is bounded and numbers are used again", "[tty][limits]") {
  DevTask task;
  const Pty first(task);
  const Pty second(task);
  CHECK(task.Call(SYS_close, first.master) == 0);
  CHECK(task.Call(SYS_close, first.slave) == 0);
  const Pty third(task);
  CHECK(task.Ioctl(third.master, TIOCGPTN) == 0);
  CHECK(task.Peek<uint32_t>(kArgument) == 0);
}

TEST_CASE("terminal settings fault like any argument", "[tty][efault]") {
  DevTask task;
  const Pty pty(task);
  CHECK(task.Ioctl(pty.slave, TCGETS, TestTask::kPageEnd - 35) == -EFAULT);
  CHECK(task.Ioctl(pty.slave, TCGETS, TestTask::kPageEnd - 36) == 0);
  CHECK(task.Ioctl(pty.slave, TCSETS, TestTask::kPageEnd - 35) == -EFAULT);
  CHECK(task.Ioctl(pty.slave, 0x1234) == -ENOTTY);
}

TEST_CASE("a host pipe as standard input and output does not block", "[host]") {
  TestTask task;
  int host_ends[2];
  REQUIRE(pipe(host_ends) == 0);
  const auto file_system = sentry::NewHostFileSystem(task.kernel());
  auto reader = sentry::NewHostFile(task.kernel(), file_system, base::Fd(host_ends[0]), {});
  REQUIRE(reader.ok());
  const int64_t fd = task.task().InstallFile(std::move(reader).value(), false).value();
  REQUIRE(task.Call(SYS_fcntl, fd, F_SETFL, O_NONBLOCK) == 0);
  CHECK(task.Call(SYS_read, fd, kText, 10) == -EAGAIN);
  REQUIRE(write(host_ends[1], "abc", 3) == 3);
  CHECK(task.Call(SYS_read, fd, kText, 10) == 3);
  // The description is shared with others: it must not have become non-blocking.
  CHECK((fcntl(host_ends[1], F_GETFL) & O_NONBLOCK) == 0);
  close(host_ends[1]);
  CHECK(task.Call(SYS_read, fd, kText, 10) == 0);
}

TEST_CASE("a host file keeps its position and its append flag", "[host]") {
  TestTask task;
  char name[] = "/tmp/host_file_XXXXXX";
  base::Fd host(mkstemp(name));
  REQUIRE(host.valid());
  unlink(name);
  const int other = dup(host.get());
  REQUIRE(write(other, "0123456789", 10) == 10);
  REQUIRE(lseek(other, 2, SEEK_SET) == 2);
  const auto file_system = sentry::NewHostFileSystem(task.kernel());
  const int64_t fd =
      task.task()
          .InstallFile(sentry::NewHostFile(task.kernel(), file_system, std::move(host), {}).value(),
                       false)
          .value();
  CHECK(task.Call(SYS_read, fd, kText, 3) == 3);
  CHECK(lseek(other, 0, SEEK_CUR) == 5);
  CHECK(task.Call(SYS_pread64, fd, kText, 3, 8) == 2);
  CHECK(lseek(other, 0, SEEK_CUR) == 5);
  CHECK(task.Call(SYS_lseek, fd, 0, SEEK_END) == 10);
  CHECK(task.Call(SYS_write, fd, kText, 3) == 3);
  CHECK(lseek(other, 0, SEEK_END) == 13);
  close(other);
}

TEST_CASE("the console pump copies both ways and flushes at the end", "[tty][console]") {
  DevTask task;
  const auto terminal = task.dev_pts->NewTerminal(*sentry::RootCredentials()).value();
  int ends[2];
  REQUIRE(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  auto pump =
      sentry::ConsolePump::Start(terminal, base::Fd(ends[0]), base::Fd(dup(ends[0]))).value();
  const int64_t slave = task.Open("/dev/pts/0", O_RDWR | O_NOCTTY);
  REQUIRE(slave >= 0);
  REQUIRE(write(ends[1], "typed\r", 6) == 6);
  pollfd polled = {ends[1], POLLIN, 0};
  REQUIRE(poll(&polled, 1, 5000) == 1);  // The echo.
  CHECK(task.Read(slave) == "typed\n");
  const std::string text(9000, 'x');
  CHECK(task.Write(slave, text) == 9000);
  pump->Finish();
  std::string all(20000, '\0');
  size_t total = 0;
  while (total < 9007) {
    const ssize_t count = read(ends[1], all.data() + total, all.size() - total);
    if (count <= 0) break;
    total += static_cast<size_t>(count);
  }
  CHECK(total == 9007);
  pump.reset();
  close(ends[1]);
}

}  // namespace
