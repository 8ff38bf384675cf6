// Pseudo-terminals and the line discipline, as a terminal emulator and a program see them.

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "catch2/catch.hpp"

namespace {

struct Pty {
  int master = -1;
  int slave = -1;
  Pty() {
    master = posix_openpt(O_RDWR | O_NOCTTY);
    REQUIRE(master >= 0);
    REQUIRE(grantpt(master) == 0);
    REQUIRE(unlockpt(master) == 0);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    REQUIRE(slave >= 0);
  }
  ~Pty() {
    if (master >= 0) close(master);
    if (slave >= 0) close(slave);
  }
  void Type(const std::string& text) const {
    REQUIRE(write(master, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    // Linux works on input after write(2) has returned, and nothing tells when.
    usleep(50'000);
  }
  std::string Read() const { return ReadFrom(slave); }
  // What the program's output and the echo came to.
  std::string Screen() const {
    std::string all;
    pollfd polled = {master, POLLIN, 0};
    while (poll(&polled, 1, 100) == 1 && (polled.revents & POLLIN) != 0) all += ReadFrom(master);
    return all;
  }
  static std::string ReadFrom(int fd) {
    char buffer[8192];
    const ssize_t count = read(fd, buffer, sizeof(buffer));
    return count > 0 ? std::string(buffer, static_cast<size_t>(count)) : std::string();
  }
  template <typename Change>
  void Set(Change&& change) const {
    termios settings = {};
    REQUIRE(tcgetattr(slave, &settings) == 0);
    change(settings);
    REQUIRE(tcsetattr(slave, TCSANOW, &settings) == 0);
  }
};

bool Readable(int fd, int timeout_ms) {
  pollfd polled = {fd, POLLIN, 0};
  return poll(&polled, 1, timeout_ms) == 1 && (polled.revents & POLLIN) != 0;
}

}  // namespace

TEST_CASE("a slave is a character device below /dev/pts", "[pty]") {
  Pty pty;
  unsigned number = 0;
  REQUIRE(ioctl(pty.master, TIOCGPTN, &number) == 0);
  CHECK(std::string(ptsname(pty.master)) == "/dev/pts/" + std::to_string(number));
  struct stat status = {};
  REQUIRE(fstat(pty.slave, &status) == 0);
  CHECK(S_ISCHR(status.st_mode));
  CHECK(major(status.st_rdev) == 136);
  CHECK(minor(status.st_rdev) == number);
  CHECK(isatty(pty.slave) == 1);
  CHECK(isatty(pty.master) == 1);
  CHECK(std::string(ttyname(pty.slave)) == ptsname(pty.master));
}

TEST_CASE("a locked slave cannot be opened", "[pty]") {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(master >= 0);
  char name[64];
  REQUIRE(ptsname_r(master, name, sizeof(name)) == 0);
  CHECK(open(name, O_RDWR | O_NOCTTY) == -1);
  CHECK(errno == EIO);
  int locked = 0;
  CHECK(ioctl(master, TIOCGPTLCK, &locked) == 0);
  CHECK(locked == 1);
  close(master);
  CHECK(open(name, O_RDWR | O_NOCTTY) == -1);
}

TEST_CASE("TIOCGPTPEER opens the slave by its master", "[pty]") {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  REQUIRE(unlockpt(master) == 0);
  const int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  REQUIRE(slave >= 0);
  CHECK((fcntl(slave, F_GETFD) & FD_CLOEXEC) != 0);
  REQUIRE(write(slave, "x", 1) == 1);
  CHECK(Pty::ReadFrom(master) == "x");
  close(slave);
  close(master);
}

TEST_CASE("a new terminal is cooked and echoes", "[pty]") {
  Pty pty;
  termios settings = {};
  REQUIRE(tcgetattr(pty.slave, &settings) == 0);
  CHECK((settings.c_lflag & (ICANON | ECHO | ISIG | IEXTEN)) == (ICANON | ECHO | ISIG | IEXTEN));
  CHECK(settings.c_cc[VINTR] == 3);
  CHECK(settings.c_cc[VERASE] == 0x7f);
  CHECK(cfgetospeed(&settings) == B38400);
  pty.Type("hello\r");
  CHECK(pty.Read() == "hello\n");
  CHECK(pty.Screen() == "hello\r\n");
}

TEST_CASE("a line can be edited before it is read", "[pty]") {
  Pty pty;
  pty.Type("abc\x7f\x7fxy zz\x17w\n");
  CHECK(pty.Read() == "axy w\n");
  CHECK(pty.Screen() == "abc\b \b\b \bxy zz\b \b\b \bw\r\n");
  pty.Type("gone\x15kept\n");
  CHECK(pty.Read() == "kept\n");
}

TEST_CASE("an unfinished line is not readable", "[pty]") {
  Pty pty;
  pty.Type("abc");
  CHECK_FALSE(Readable(pty.slave, 30));
  int count = -1;
  CHECK(ioctl(pty.slave, FIONREAD, &count) == 0);
  CHECK(count == 0);
  pty.Type("\n");
  CHECK(Readable(pty.slave, 1000));
  CHECK(ioctl(pty.slave, FIONREAD, &count) == 0);
  CHECK(count == 4);
}

TEST_CASE("^D at the start of a line reads as end of file", "[pty]") {
  Pty pty;
  pty.Type("ab\x04\x04");
  CHECK(pty.Read() == "ab");
  char byte = 0;
  CHECK(read(pty.slave, &byte, 1) == 0);
}

TEST_CASE("raw mode passes every byte through", "[pty]") {
  Pty pty;
  pty.Set([](termios& settings) { cfmakeraw(&settings); });
  pty.Type("a\r\x03\x7f");
  CHECK(pty.Read() == "a\r\x03\x7f");
  REQUIRE(write(pty.slave, "x\ny", 3) == 3);
  CHECK(pty.Screen() == "x\ny");
}

TEST_CASE("VMIN and VTIME bound a raw read", "[pty]") {
  Pty pty;
  pty.Set([](termios& settings) {
    cfmakeraw(&settings);
    settings.c_cc[VMIN] = 0;
    settings.c_cc[VTIME] = 0;
  });
  char buffer[16];
  CHECK(read(pty.slave, buffer, sizeof(buffer)) == 0);
  pty.Set([](termios& settings) { settings.c_cc[VTIME] = 1; });
  CHECK(read(pty.slave, buffer, sizeof(buffer)) == 0);
  pty.Set([](termios& settings) {
    settings.c_cc[VMIN] = 5;
    settings.c_cc[VTIME] = 1;
  });
  pty.Type("abc");
  CHECK(read(pty.slave, buffer, sizeof(buffer)) == 3);
}

TEST_CASE("output processing turns newlines into carriage return and newline", "[pty]") {
  Pty pty;
  REQUIRE(write(pty.slave, "a\nb\n", 4) == 4);
  CHECK(pty.Screen() == "a\r\nb\r\n");
  pty.Set([](termios& settings) { settings.c_oflag &= ~static_cast<tcflag_t>(ONLCR); });
  REQUIRE(write(pty.slave, "a\n", 2) == 2);
  CHECK(pty.Screen() == "a\n");
}

TEST_CASE("^S stops output and ^Q lets it go on", "[pty]") {
  Pty pty;
  pty.Type("\x13");
  REQUIRE(fcntl(pty.slave, F_SETFL, O_NONBLOCK) == 0);
  CHECK(write(pty.slave, "x", 1) == -1);
  CHECK(errno == EAGAIN);
  pty.Type("\x11");
  // Input is worked on later than write(2) returns: wait for it.
  REQUIRE(fcntl(pty.slave, F_SETFL, 0) == 0);
  CHECK(write(pty.slave, "x", 1) == 1);
  CHECK(pty.Screen() == "x");
}

TEST_CASE("TCSAFLUSH and tcflush drop input", "[pty]") {
  Pty pty;
  pty.Type("abc\n");
  termios settings = {};
  REQUIRE(tcgetattr(pty.slave, &settings) == 0);
  REQUIRE(tcsetattr(pty.slave, TCSAFLUSH, &settings) == 0);
  CHECK_FALSE(Readable(pty.slave, 30));
  pty.Type("abc\n");
  CHECK(tcflush(pty.slave, TCIFLUSH) == 0);
  CHECK_FALSE(Readable(pty.slave, 30));
  CHECK(tcflush(pty.slave, 99) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("the window size is shared by both ends", "[pty]") {
  Pty pty;
  winsize size = {24, 80, 0, 0};
  REQUIRE(ioctl(pty.master, TIOCSWINSZ, &size) == 0);
  winsize seen = {};
  REQUIRE(ioctl(pty.slave, TIOCGWINSZ, &seen) == 0);
  CHECK(seen.ws_row == 24);
  CHECK(seen.ws_col == 80);
}

TEST_CASE("a master reads EIO once the last slave is closed", "[pty]") {
  Pty pty;
  REQUIRE(write(pty.slave, "bye", 3) == 3);
  close(pty.slave);
  pty.slave = -1;
  CHECK(pty.Screen() == "bye");
  char byte = 0;
  CHECK(read(pty.master, &byte, 1) == -1);
  CHECK(errno == EIO);
  pollfd polled = {pty.master, POLLIN, 0};
  CHECK(poll(&polled, 1, 0) == 1);
  CHECK((polled.revents & POLLHUP) != 0);
  // Opened again, it lives again.
  pty.slave = open(ptsname(pty.master), O_RDWR | O_NOCTTY);
  REQUIRE(pty.slave >= 0);
  REQUIRE(write(pty.slave, "x", 1) == 1);
  CHECK(pty.Screen() == "x");
}

TEST_CASE("a slave is hung up when its master closes", "[pty]") {
  Pty pty;
  close(pty.master);
  pty.master = -1;
  char byte = 0;
  CHECK(read(pty.slave, &byte, 1) == 0);
  CHECK(write(pty.slave, "x", 1) == -1);
  CHECK(errno == EIO);
  pollfd polled = {pty.slave, POLLIN | POLLOUT, 0};
  CHECK(poll(&polled, 1, 0) == 1);
  CHECK((polled.revents & (POLLHUP | POLLERR)) == (POLLHUP | POLLERR));
  termios settings = {};
  CHECK(tcgetattr(pty.slave, &settings) == -1);
  CHECK(errno == EIO);
}

TEST_CASE("packet mode puts a status byte before the data", "[pty]") {
  Pty pty;
  int on = 1;
  REQUIRE(ioctl(pty.master, TIOCPKT, &on) == 0);
  REQUIRE(write(pty.slave, "x", 1) == 1);
  CHECK(Pty::ReadFrom(pty.master) == std::string("\0x", 2));
  REQUIRE(tcflush(pty.slave, TCIFLUSH) == 0);
  pollfd polled = {pty.master, POLLIN | POLLPRI, 0};
  REQUIRE(poll(&polled, 1, 1000) == 1);
  CHECK((polled.revents & POLLPRI) != 0);
  const std::string status = Pty::ReadFrom(pty.master);
  REQUIRE(status.size() == 1);
  CHECK((status[0] & TIOCPKT_FLUSHREAD) != 0);
}

TEST_CASE("a full terminal refuses more until it is read", "[pty][limits]") {
  Pty pty;
  REQUIRE(fcntl(pty.slave, F_SETFL, O_NONBLOCK) == 0);
  const std::string piece(1000, 'x');
  size_t total = 0;
  ssize_t count = 0;
  while (total < (1 << 20) && (count = write(pty.slave, piece.data(), piece.size())) > 0) {
    total += static_cast<size_t>(count);
  }
  CHECK(count == -1);
  CHECK(errno == EAGAIN);
  CHECK(pty.Screen().size() == total);
  CHECK(write(pty.slave, "y", 1) == 1);
}

TEST_CASE("a blocked write goes on when the other end reads", "[pty]") {
  Pty pty;
  const std::string text(100000, 'x');
  const pid_t child = fork();
  if (child == 0) {
    const ssize_t count = write(pty.slave, text.data(), text.size());
    _exit(count == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  size_t total = 0;
  while (total < text.size()) {
    const std::string piece = Pty::ReadFrom(pty.master);
    if (piece.empty()) break;
    total += piece.size();
  }
  CHECK(total == text.size());
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("TIOCEXCL keeps others out", "[pty]") {
  if (geteuid() == 0) return;  // CAP_SYS_ADMIN may.
  Pty pty;
  REQUIRE(ioctl(pty.slave, TIOCEXCL) == 0);
  CHECK(open(ptsname(pty.master), O_RDWR | O_NOCTTY) == -1);
  CHECK(errno == EBUSY);
}

TEST_CASE("terminal ioctls on other files are refused with ENOTTY", "[pty]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  termios settings = {};
  CHECK(tcgetattr(ends[0], &settings) == -1);
  CHECK(errno == ENOTTY);
  close(ends[0]);
  close(ends[1]);
}
