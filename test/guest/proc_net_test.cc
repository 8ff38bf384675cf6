// Sockets as others see them: non-blocking connects that are under way, /proc/net.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

#include "catch2/catch.hpp"

namespace {

struct Listener {
  Listener() : fd(socket(AF_INET, SOCK_STREAM, 0)) {
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
    socklen_t length = sizeof(address);
    REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0);
  }
  ~Listener() { close(fd); }
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  const sockaddr* at() const { return reinterpret_cast<const sockaddr*>(&address); }
  int fd;
  sockaddr_in address{};
};

int SocketError(int fd) {
  int error = -1;
  socklen_t length = sizeof(error);
  REQUIRE(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0);
  return error;
}

// The line of `file` whose inode is the socket's; empty if there is none.
std::string LineOf(const char* file, int fd) {
  struct stat status{};
  REQUIRE(fstat(fd, &status) == 0);
  std::ifstream lines(file);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      if (word == std::to_string(status.st_ino)) return line;
    }
  }
  return {};
}

std::string Hex(const char* format, unsigned a, unsigned b) {
  char text[64];
  snprintf(text, sizeof(text), format, a, b);
  return text;
}

}  // namespace

TEST_CASE("a non-blocking connect is under way, then done", "[socket][connect]") {
  Listener listener;
  REQUIRE(listen(listener.fd, 5) == 0);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  CHECK(connect(fd, listener.at(), sizeof(sockaddr_in)) == -1);
  CHECK(errno == EINPROGRESS);
  pollfd poll_fd{fd, POLLOUT, 0};
  REQUIRE(poll(&poll_fd, 1, 5000) == 1);
  CHECK(poll_fd.revents == POLLOUT);
  CHECK(SocketError(fd) == 0);
  CHECK(connect(fd, listener.at(), sizeof(sockaddr_in)) == 0);
  CHECK(connect(fd, listener.at(), sizeof(sockaddr_in)) == -1);
  CHECK(errno == EISCONN);
  const int accepted = accept(listener.fd, nullptr, nullptr);
  REQUIRE(accepted >= 0);
  CHECK(write(fd, "hello", 5) == 5);
  char text[8] = {};
  CHECK(read(accepted, text, sizeof(text)) == 5);
  close(accepted);
  close(fd);
}

TEST_CASE("a refused non-blocking connect is told by poll and SO_ERROR", "[socket][connect]") {
  const Listener nobody;  // Bound, not listening.
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int set = epoll_create1(0);
  epoll_event wanted{EPOLLOUT | EPOLLET, {}};
  REQUIRE(epoll_ctl(set, EPOLL_CTL_ADD, fd, &wanted) == 0);
  epoll_event got{};
  while (epoll_wait(set, &got, 1, 0) == 1) {
  }
  CHECK(connect(fd, nobody.at(), sizeof(sockaddr_in)) == -1);
  CHECK(errno == EINPROGRESS);
  REQUIRE(epoll_wait(set, &got, 1, 5000) == 1);
  CHECK((got.events & (EPOLLERR | EPOLLHUP | EPOLLOUT)) == (EPOLLERR | EPOLLHUP | EPOLLOUT));
  CHECK(SocketError(fd) == ECONNREFUSED);
  CHECK(SocketError(fd) == 0);
  CHECK(connect(fd, nobody.at(), sizeof(sockaddr_in)) == -1);
  CHECK(errno == ECONNABORTED);
  CHECK(connect(fd, nobody.at(), sizeof(sockaddr_in)) == -1);
  CHECK(errno == EINPROGRESS);
  CHECK(connect(fd, nobody.at(), sizeof(sockaddr_in)) == -1);
  CHECK(errno == ECONNREFUSED);
  close(set);
  close(fd);
}

TEST_CASE("a blocking connect is refused at once", "[socket][connect]") {
  const Listener nobody;
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(fd, nobody.at(), sizeof(sockaddr_in)) == -1);
  CHECK(errno == ECONNREFUSED);
  CHECK(SocketError(fd) == 0);
  close(fd);
}

TEST_CASE("small buffers hold little, whenever they were made small", "[socket][connect]") {
  Listener listener;
  const int small = 4096;
  REQUIRE(setsockopt(listener.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
  REQUIRE(listen(listener.fd, 5) == 0);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(connect(fd, listener.at(), sizeof(sockaddr_in)) == 0);
  REQUIRE(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
  REQUIRE(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
  char block[1024] = {};
  size_t sent = 0;
  while (sent < (1U << 20)) {
    const ssize_t got = send(fd, block, sizeof(block), 0);
    if (got < 0) break;
    sent += static_cast<size_t>(got);
  }
  CHECK(errno == EAGAIN);
  CHECK(sent > 0);
  CHECK(sent < (1U << 17));
  close(fd);
}

TEST_CASE("/proc/net/tcp lists listeners and connections", "[proc][socket]") {
  const Listener listener;
  CHECK(LineOf("/proc/net/tcp", listener.fd).empty());
  REQUIRE(listen(listener.fd, 5) == 0);
  const unsigned port = ntohs(listener.address.sin_port);
  const std::string line = LineOf("/proc/net/tcp", listener.fd);
  CAPTURE(line);
  CHECK(line.size() == 149);
  CHECK(line.find(Hex(": 0100007F:%04X 00000000:%04X 0A ", port, 0)) == 4);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(connect(fd, listener.at(), sizeof(sockaddr_in)) == 0);
  sockaddr_in own{};
  socklen_t length = sizeof(own);
  REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&own), &length) == 0);
  const std::string client = LineOf("/proc/net/tcp", fd);
  CHECK(client.find(Hex("0100007F:%04X 0100007F:%04X 01 ", ntohs(own.sin_port), port)) == 6);
  const int accepted = accept(listener.fd, nullptr, nullptr);
  CHECK(!LineOf("/proc/net/tcp", accepted).empty());
  close(fd);
  CHECK(LineOf("/proc/net/tcp", accepted).find(" 08 ") != std::string::npos);  // CLOSE_WAIT
  close(accepted);
}

TEST_CASE("/proc/net/udp and tcp6 list bound sockets", "[proc][socket]") {
  const int udp = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(LineOf("/proc/net/udp", udp).empty());
  sockaddr_in any{};
  any.sin_family = AF_INET;
  REQUIRE(bind(udp, reinterpret_cast<sockaddr*>(&any), sizeof(any)) == 0);
  const std::string line = LineOf("/proc/net/udp", udp);
  CAPTURE(line);
  CHECK(line.size() == 127);
  CHECK(line.find(": 00000000:") == 5);
  CHECK(line.find(" 00000000:0000 07 ") == 20);
  close(udp);
  const int tcp6 = socket(AF_INET6, SOCK_STREAM, 0);
  if (tcp6 < 0) return;  // A host without IPv6.
  REQUIRE(listen(tcp6, 1) == 0);
  const std::string line6 = LineOf("/proc/net/tcp6", tcp6);
  CAPTURE(line6);
  CHECK(line6.find(": 00000000000000000000000000000000:") == 4);
  CHECK(line6.find(" 00000000000000000000000000000000:0000 0A ") == 43);
  CHECK(LineOf("/proc/net/tcp", tcp6).empty());
  close(tcp6);
}

TEST_CASE("/proc/net/unix lists sockets with their names", "[proc][socket]") {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  const std::string unnamed = LineOf("/proc/net/unix", fd);
  CAPTURE(unnamed);
  CHECK(unnamed.find(": 00000002 00000000 00000000 0001 01 ") == 16);
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  const std::string text = "ravelin-" + std::to_string(getpid());
  std::memcpy(name.sun_path + 1, text.data(), text.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&name), length) == 0);
  REQUIRE(listen(fd, 1) == 0);
  const std::string line = LineOf("/proc/net/unix", fd);
  CAPTURE(line);
  CHECK(line.find(": 00000002 00000000 00010000 0001 01 ") == 16);
  CHECK(line.substr(line.size() - text.size() - 2) == " @" + text);
  close(fd);
}
