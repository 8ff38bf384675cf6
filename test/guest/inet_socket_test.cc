// TCP and UDP over the loopback interface, and what route netlink says of it.

#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "catch2/catch.hpp"

namespace {

sockaddr_in V4(uint32_t address, uint16_t port) {
  sockaddr_in result = {};
  result.sin_family = AF_INET;
  result.sin_addr.s_addr = htonl(address);
  result.sin_port = htons(port);
  return result;
}

template <typename T>
const sockaddr* Raw(const T& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}
template <typename T>
sockaddr* Raw(T& address) {
  return reinterpret_cast<sockaddr*>(&address);
}

uint16_t PortOf(int fd) {
  sockaddr_in6 address = {};
  socklen_t length = sizeof(address);
  REQUIRE(getsockname(fd, Raw(address), &length) == 0);
  return ntohs(address.sin6_port);  // At the same place in both families.
}

int Bound(int type) {
  const int fd = socket(AF_INET, type, 0);
  REQUIRE(fd >= 0);
  const sockaddr_in address = V4(INADDR_LOOPBACK, 0);
  REQUIRE(bind(fd, Raw(address), sizeof(address)) == 0);
  return fd;
}

struct Connection {
  int listener = -1;
  int client = -1;
  int server = -1;
  Connection() {
    listener = Bound(SOCK_STREAM);
    REQUIRE(listen(listener, 8) == 0);
    client = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = V4(INADDR_LOOPBACK, PortOf(listener));
    REQUIRE(connect(client, Raw(address), sizeof(address)) == 0);
    server = accept(listener, nullptr, nullptr);
    REQUIRE(server >= 0);
  }
  ~Connection() {
    for (const int fd : {listener, client, server}) {
      if (fd >= 0) close(fd);
    }
  }
};

short Poll(int fd, short events, int timeout_ms = 0) {
  pollfd polled = {fd, events, 0};
  REQUIRE(poll(&polled, 1, timeout_ms) >= 0);
  return polled.revents;
}

}  // namespace

TEST_CASE("a TCP connection over loopback carries bytes both ways", "[inet][tcp]") {
  Connection tcp;
  REQUIRE(write(tcp.client, "ping", 4) == 4);
  char buffer[16];
  REQUIRE(read(tcp.server, buffer, sizeof(buffer)) == 4);
  REQUIRE(write(tcp.server, "pong!", 5) == 5);
  REQUIRE(recv(tcp.client, buffer, 5, MSG_WAITALL) == 5);
  CHECK(std::string(buffer, 5) == "pong!");
}

TEST_CASE("both ends of a connection know their addresses", "[inet][tcp]") {
  Connection tcp;
  sockaddr_in local = {};
  sockaddr_in peer = {};
  socklen_t length = sizeof(local);
  REQUIRE(getsockname(tcp.client, Raw(local), &length) == 0);
  length = sizeof(peer);
  REQUIRE(getpeername(tcp.server, Raw(peer), &length) == 0);
  CHECK(local.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
  CHECK(local.sin_port != 0);
  CHECK(peer.sin_port == local.sin_port);
  CHECK(peer.sin_addr.s_addr == local.sin_addr.s_addr);
  CHECK(PortOf(tcp.server) == PortOf(tcp.listener));
}

TEST_CASE("a port without a listener refuses", "[inet][tcp]") {
  const int unused = Bound(SOCK_STREAM);
  const sockaddr_in address = V4(INADDR_LOOPBACK, PortOf(unused));
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(fd, Raw(address), sizeof(address)) == -1);
  CHECK(errno == ECONNREFUSED);
  // The same socket may try again.
  REQUIRE(listen(unused, 1) == 0);
  CHECK(connect(fd, Raw(address), sizeof(address)) == 0);
  CHECK(connect(fd, Raw(address), sizeof(address)) == -1);
  CHECK(errno == EISCONN);
  close(fd);
  close(unused);
}

TEST_CASE("the end of a TCP stream arrives after its bytes", "[inet][tcp]") {
  Connection tcp;
  REQUIRE(write(tcp.server, "bye", 3) == 3);
  close(std::exchange(tcp.server, -1));
  char buffer[8];
  CHECK(recv(tcp.client, buffer, sizeof(buffer), 0) == 3);
  CHECK(recv(tcp.client, buffer, sizeof(buffer), 0) == 0);
  CHECK((Poll(tcp.client, POLLIN | POLLOUT | POLLRDHUP) & (POLLIN | POLLRDHUP | POLLHUP)) ==
        (POLLIN | POLLRDHUP));
  // The first bytes go out; their answer is a reset, which the next ones meet.
  CHECK(send(tcp.client, "x", 1, MSG_NOSIGNAL) == 1);
  usleep(10000);
  CHECK(send(tcp.client, "x", 1, MSG_NOSIGNAL) == -1);
  CHECK(errno == EPIPE);
}

TEST_CASE("closing with unread bytes resets a TCP connection", "[inet][tcp]") {
  Connection tcp;
  REQUIRE(write(tcp.client, "unread", 6) == 6);
  usleep(10000);
  close(std::exchange(tcp.server, -1));
  usleep(10000);
  CHECK((Poll(tcp.client, POLLIN) & (POLLERR | POLLHUP)) == (POLLERR | POLLHUP));
  char byte = 0;
  CHECK(recv(tcp.client, &byte, 1, 0) == -1);
  CHECK(errno == ECONNRESET);
  CHECK(recv(tcp.client, &byte, 1, 0) == 0);
}

TEST_CASE("shutdown for writing is an end, not a reset", "[inet][tcp]") {
  Connection tcp;
  REQUIRE(shutdown(tcp.client, SHUT_WR) == 0);
  char byte = 0;
  CHECK(read(tcp.server, &byte, 1) == 0);
  CHECK(write(tcp.server, "x", 1) == 1);
  CHECK(read(tcp.client, &byte, 1) == 1);
  CHECK(send(tcp.client, "x", 1, MSG_NOSIGNAL) == -1);
  CHECK(errno == EPIPE);
  const int fresh = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(shutdown(fresh, SHUT_RDWR) == -1);
  CHECK(errno == ENOTCONN);
  close(fresh);
}

TEST_CASE("a port is taken until its socket closes", "[inet]") {
  const int type = GENERATE(SOCK_STREAM, SOCK_DGRAM);
  const int first = Bound(type);
  const int second = socket(AF_INET, type, 0);
  const sockaddr_in same = V4(INADDR_LOOPBACK, PortOf(first));
  CHECK(bind(second, Raw(same), sizeof(same)) == -1);
  CHECK(errno == EADDRINUSE);
  const sockaddr_in any = V4(INADDR_ANY, PortOf(first));
  CHECK(bind(second, Raw(any), sizeof(any)) == -1);
  CHECK(errno == EADDRINUSE);
  const sockaddr_in other = V4(INADDR_LOOPBACK + 1, PortOf(first));
  CHECK(bind(second, Raw(other), sizeof(other)) == 0);
  close(second);
  close(first);
  const int third = socket(AF_INET, type, 0);
  CHECK(bind(third, Raw(same), sizeof(same)) == 0);
  CHECK(bind(third, Raw(same), sizeof(same)) == -1);
  CHECK(errno == EINVAL);
  close(third);
}

TEST_CASE("SO_REUSEADDR does not let two sockets listen at one port", "[inet][tcp]") {
  const int on = 1;
  const int first = socket(AF_INET, SOCK_STREAM, 0);
  const int second = socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(setsockopt(first, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0);
  REQUIRE(setsockopt(second, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0);
  sockaddr_in address = V4(INADDR_LOOPBACK, 0);
  REQUIRE(bind(first, Raw(address), sizeof(address)) == 0);
  address = V4(INADDR_LOOPBACK, PortOf(first));
  REQUIRE(bind(second, Raw(address), sizeof(address)) == 0);
  REQUIRE(listen(first, 1) == 0);
  CHECK(listen(second, 1) == -1);
  CHECK(errno == EADDRINUSE);
  close(first);
  close(second);
}

TEST_CASE("SO_REUSEPORT lets two sockets listen at one port", "[inet][tcp]") {
  const int on = 1;
  const int first = socket(AF_INET, SOCK_STREAM, 0);
  const int second = socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(setsockopt(first, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0);
  REQUIRE(setsockopt(second, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) == 0);
  sockaddr_in address = V4(INADDR_LOOPBACK, 0);
  REQUIRE(bind(first, Raw(address), sizeof(address)) == 0);
  address = V4(INADDR_LOOPBACK, PortOf(first));
  REQUIRE(bind(second, Raw(address), sizeof(address)) == 0);
  CHECK(listen(first, 1) == 0);
  CHECK(listen(second, 1) == 0);
  close(first);
  close(second);
}

TEST_CASE("listen without bind picks a port", "[inet][tcp]") {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(listen(fd, 1) == 0);
  CHECK(PortOf(fd) != 0);
  int value = 0;
  socklen_t length = sizeof(value);
  REQUIRE(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0);
  CHECK(value == 1);
  CHECK(accept(Bound(SOCK_STREAM), nullptr, nullptr) == -1);
  CHECK(errno == EINVAL);
  close(fd);
}

TEST_CASE("an IPv6 wildcard socket takes IPv4 connections, too", "[inet][ipv6]") {
  const int listener = socket(AF_INET6, SOCK_STREAM, 0);
  REQUIRE(listener >= 0);
  int off = 0;
  REQUIRE(setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) == 0);
  sockaddr_in6 any = {};
  any.sin6_family = AF_INET6;
  REQUIRE(bind(listener, Raw(any), sizeof(any)) == 0);
  REQUIRE(listen(listener, 4) == 0);
  const int v4 = socket(AF_INET, SOCK_STREAM, 0);
  const sockaddr_in to4 = V4(INADDR_LOOPBACK, PortOf(listener));
  REQUIRE(connect(v4, Raw(to4), sizeof(to4)) == 0);
  sockaddr_in6 peer = {};
  socklen_t length = sizeof(peer);
  const int server = accept(listener, Raw(peer), &length);
  REQUIRE(server >= 0);
  CHECK(length == sizeof(peer));
  CHECK(IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr));
  const int v6 = socket(AF_INET6, SOCK_STREAM, 0);
  sockaddr_in6 to6 = {};
  to6.sin6_family = AF_INET6;
  to6.sin6_addr = in6addr_loopback;
  to6.sin6_port = htons(PortOf(listener));
  CHECK(connect(v6, Raw(to6), sizeof(to6)) == 0);
  for (const int fd : {server, v4, v6, listener}) close(fd);
}

TEST_CASE("datagrams over loopback tell their sender", "[inet][udp]") {
  const int server = Bound(SOCK_DGRAM);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  const sockaddr_in to = V4(INADDR_LOOPBACK, PortOf(server));
  CHECK(send(client, "x", 1, 0) == -1);
  CHECK(errno == EDESTADDRREQ);
  REQUIRE(sendto(client, "hello", 5, 0, Raw(to), sizeof(to)) == 5);
  REQUIRE(sendto(client, "", 0, 0, Raw(to), sizeof(to)) == 0);
  char buffer[16];
  sockaddr_in from = {};
  socklen_t length = sizeof(from);
  REQUIRE(recvfrom(server, buffer, 3, MSG_TRUNC, Raw(from), &length) == 5);
  CHECK(ntohs(from.sin_port) == PortOf(client));
  CHECK(from.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
  CHECK(recv(server, buffer, sizeof(buffer), 0) == 0);
  CHECK(recv(server, buffer, sizeof(buffer), MSG_DONTWAIT) == -1);
  CHECK(errno == EAGAIN);
  std::vector<char> huge(65508);
  CHECK(sendto(client, huge.data(), huge.size(), 0, Raw(to), sizeof(to)) == -1);
  CHECK(errno == EMSGSIZE);
  close(client);
  close(server);
}

TEST_CASE("a connected datagram socket learns that nobody listens", "[inet][udp]") {
  const int gone = Bound(SOCK_DGRAM);
  const sockaddr_in to = V4(INADDR_LOOPBACK, PortOf(gone));
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  REQUIRE(connect(client, Raw(to), sizeof(to)) == 0);
  close(gone);
  REQUIRE(send(client, "x", 1, 0) == 1);
  CHECK((Poll(client, POLLIN, 1000) & POLLERR) != 0);
  char byte = 0;
  CHECK(recv(client, &byte, 1, 0) == -1);
  CHECK(errno == ECONNREFUSED);
  close(client);
}

TEST_CASE("TCP options read as they were set", "[inet][tcp]") {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const auto round_trip = [&](int level, int name, int value) {
    CAPTURE(level, name, value);
    CHECK(setsockopt(fd, level, name, &value, sizeof(value)) == 0);
    int seen = -1;
    socklen_t length = sizeof(seen);
    CHECK(getsockopt(fd, level, name, &seen, &length) == 0);
    CHECK(seen == value);
  };
  round_trip(IPPROTO_TCP, TCP_NODELAY, 1);
  round_trip(IPPROTO_TCP, TCP_KEEPIDLE, 30);
  round_trip(IPPROTO_TCP, TCP_KEEPINTVL, 5);
  round_trip(IPPROTO_TCP, TCP_KEEPCNT, 3);
  round_trip(IPPROTO_TCP, TCP_USER_TIMEOUT, 1000);
  round_trip(SOL_SOCKET, SO_KEEPALIVE, 1);
  round_trip(SOL_SOCKET, SO_REUSEADDR, 1);
  round_trip(IPPROTO_IP, IP_TTL, 33);
  int value = 0;
  socklen_t length = sizeof(value);
  CHECK(getsockopt(fd, IPPROTO_TCP, 9999, &value, &length) == -1);
  CHECK(errno == ENOPROTOOPT);
  value = 0;
  CHECK(setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, sizeof(value)) == -1);
  CHECK(errno == EINVAL);
  close(fd);
}

TEST_CASE("a new TCP socket polls as hung up and is not connected", "[inet][tcp]") {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(Poll(fd, POLLIN | POLLOUT) == (POLLOUT | POLLHUP));
  char byte = 0;
  CHECK(recv(fd, &byte, 1, 0) == -1);
  CHECK(errno == ENOTCONN);
  CHECK(send(fd, &byte, 1, MSG_NOSIGNAL) == -1);
  CHECK(errno == EPIPE);
  sockaddr_in address = {};
  socklen_t length = sizeof(address);
  CHECK(getpeername(fd, Raw(address), &length) == -1);
  CHECK(errno == ENOTCONN);
  close(fd);
}

TEST_CASE("bad addresses are refused", "[inet]") {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = V4(INADDR_LOOPBACK, 0);
  CHECK(bind(fd, Raw(address), 4) == -1);
  CHECK(errno == EINVAL);
  address.sin_family = AF_INET6;
  CHECK(bind(fd, Raw(address), sizeof(address)) == -1);
  CHECK(errno == EAFNOSUPPORT);
  address = V4(0xc0000201, 0);  // 192.0.2.1, TEST-NET-1.
  CHECK(bind(fd, Raw(address), sizeof(address)) == -1);
  CHECK(errno == EADDRNOTAVAIL);
  close(fd);
}

TEST_CASE("megabytes cross a TCP connection unharmed", "[inet][tcp]") {
  Connection tcp;
  constexpr size_t kSize = 8 << 20;
  const pid_t child = fork();
  if (child == 0) {
    std::vector<unsigned char> data(kSize);
    for (size_t i = 0; i < kSize; ++i) data[i] = static_cast<unsigned char>(i * 31 + (i >> 8));
    size_t sent = 0;
    while (sent < kSize) {
      const ssize_t count = write(tcp.client, data.data() + sent, kSize - sent);
      if (count <= 0) _exit(1);
      sent += static_cast<size_t>(count);
    }
    _exit(0);
  }
  size_t total = 0;
  bool right = true;
  std::vector<unsigned char> buffer(100000);
  while (total < kSize) {
    const ssize_t count = read(tcp.server, buffer.data(), buffer.size());
    if (count <= 0) break;
    for (size_t i = 0; i < static_cast<size_t>(count); ++i, ++total) {
      right = right && buffer[i] == static_cast<unsigned char>(total * 31 + (total >> 8));
    }
  }
  CHECK(total == kSize);
  CHECK(right);
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("accept waits for a connection", "[inet][tcp]") {
  const int listener = Bound(SOCK_STREAM);
  REQUIRE(listen(listener, 1) == 0);
  const uint16_t port = PortOf(listener);
  const pid_t child = fork();
  if (child == 0) {
    usleep(30000);
    const int client = socket(AF_INET, SOCK_STREAM, 0);
    const sockaddr_in address = V4(INADDR_LOOPBACK, port);
    _exit(connect(client, Raw(address), sizeof(address)) == 0 ? 0 : 1);
  }
  const int server = accept(listener, nullptr, nullptr);
  CHECK(server >= 0);
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status == 0);
  close(server);
  close(listener);
}

TEST_CASE("the loopback interface is known by name, index and address", "[inet][netlink]") {
  CHECK(if_nametoindex("lo") == 1);
  char name[IF_NAMESIZE] = {};
  REQUIRE(if_indextoname(1, name) != nullptr);
  CHECK(std::string(name) == "lo");
  ifaddrs* list = nullptr;
  REQUIRE(getifaddrs(&list) == 0);
  bool found = false;
  for (const ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
    if (std::string(entry->ifa_name) != "lo" || entry->ifa_addr == nullptr) continue;
    if (entry->ifa_addr->sa_family != AF_INET) continue;
    found = true;
    CHECK(reinterpret_cast<const sockaddr_in*>(entry->ifa_addr)->sin_addr.s_addr ==
          htonl(INADDR_LOOPBACK));
    CHECK((entry->ifa_flags & (IFF_UP | IFF_LOOPBACK)) == (IFF_UP | IFF_LOOPBACK));
  }
  CHECK(found);
  freeifaddrs(list);
}
