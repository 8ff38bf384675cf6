// The network gofer under the filter that runsc-network installs: sockets of the host for a client
// that can make none, and nothing else.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "catch2/catch.hpp"
#include "gofer/network/client.h"
#include "gofer/network/server.h"
#include "platform/seccomp/filter.h"
#include "runsc-cli/main/network_filter.h"

namespace {

using gofer::network::Client;
using gofer::network::HostSocket;

// A filtered server in a process of its own.
class Peer {
 public:
  Peer() {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
      close(ends[0]);
      gofer::network::Server server{base::Fd(ends[1])};
      const auto program = platform::seccomp::Compile(runsc::NetworkGoferFilter());
      if (!platform::seccomp::Install(program).ok()) _exit(4);
      _exit(server.Run().ok() ? 0 : 1);
    }
    close(ends[1]);
    socket_ = base::Fd(ends[0]);
  }
  ~Peer() {
    if (pid_ > 0) End();
  }
  // After the client's end has gone: the exit status.
  int End() {
    socket_.Reset();
    int status = 0;
    waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  base::Fd Take() { return std::move(socket_); }
  int socket() const { return socket_.get(); }

 private:
  pid_t pid_ = -1;
  base::Fd socket_;
};

std::vector<uint8_t> Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::vector<uint8_t> bytes(sizeof(address));
  std::memcpy(bytes.data(), &address, sizeof(address));
  return bytes;
}

uint16_t PortOf(const std::vector<uint8_t>& bytes) {
  sockaddr_in address = {};
  REQUIRE(bytes.size() >= sizeof(address));
  std::memcpy(&address, bytes.data(), sizeof(address));
  return ntohs(address.sin_port);
}

std::vector<uint8_t> Number(int32_t value) {
  std::vector<uint8_t> bytes(sizeof(value));
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

void WaitFor(const HostSocket& socket, short events) {
  pollfd ready{socket.fd.get(), events, 0};
  REQUIRE(poll(&ready, 1, 5000) == 1);
}

TEST_CASE("a connection over the host's loopback, all of it asked for") {
  Peer peer;
  Client client(peer.Take());
  const HostSocket listener = client.Socket(AF_INET, SOCK_STREAM, 0).value();
  CHECK(client.SetOption(listener.handle, SOL_SOCKET, SO_REUSEADDR, Number(1)).ok());
  REQUIRE(client.Bind(listener.handle, Loopback(0)).ok());
  REQUIRE(client.Listen(listener.handle, 4).ok());
  CHECK(client.Accept(listener.handle).error() == EAGAIN);
  const uint16_t port = PortOf(client.LocalAddress(listener.handle).value());

  const HostSocket caller = client.Socket(AF_INET, SOCK_STREAM, IPPROTO_TCP).value();
  const auto connected = client.Connect(caller.handle, Loopback(port));
  CHECK((connected.ok() || connected.error() == EINPROGRESS));
  WaitFor(listener, POLLIN);
  const HostSocket accepted = client.Accept(listener.handle).value();
  CHECK(accepted.handle != caller.handle);
  WaitFor(caller, POLLOUT);
  CHECK(PortOf(client.PeerAddress(caller.handle).value()) == port);
  CHECK(client.GetOption(caller.handle, IPPROTO_TCP, TCP_INFO).value().size() > 100);
  CHECK(client.GetOption(caller.handle, SOL_SOCKET, SO_ERROR).value() == Number(0));

  REQUIRE(send(caller.fd.get(), "ping", 4, 0) == 4);
  WaitFor(accepted, POLLIN);
  char text[8] = {};
  CHECK(recv(accepted.fd.get(), text, sizeof(text), 0) == 4);
  CHECK(std::string(text) == "ping");
  REQUIRE(client.Shutdown(accepted.handle, SHUT_WR).ok());
  WaitFor(caller, POLLIN);
  CHECK(recv(caller.fd.get(), text, sizeof(text), 0) == 0);

  client.Close(caller.handle);
  CHECK(client.PeerAddress(caller.handle).error() == EBADF);
}

TEST_CASE("what is not the internet's is refused") {
  Peer peer;
  Client client(peer.Take());
  CHECK(client.Socket(AF_UNIX, SOCK_STREAM, 0).error() == EAFNOSUPPORT);
  CHECK(client.Socket(AF_NETLINK, SOCK_RAW, 0).error() == EAFNOSUPPORT);
  CHECK(client.Socket(AF_INET, SOCK_RAW, IPPROTO_ICMP).error() == ESOCKTNOSUPPORT);
  CHECK(client.Socket(AF_INET, SOCK_STREAM, IPPROTO_UDP).error() == EPROTONOSUPPORT);
  const HostSocket udp = client.Socket(AF_INET6, SOCK_DGRAM, 0).value();
  CHECK(client.SetOption(udp.handle, SOL_SOCKET, SO_ATTACH_FILTER, Number(0)).error() ==
        ENOPROTOOPT);
  CHECK(client.SetOption(udp.handle, SOL_SOCKET, SO_BINDTODEVICE, Number(0)).error() ==
        ENOPROTOOPT);
  CHECK(client.SetOption(udp.handle, SOL_SOCKET, SO_ERROR, Number(0)).error() == ENOPROTOOPT);
  std::vector<uint8_t> local(16);
  local[0] = AF_UNIX;
  CHECK(client.Bind(udp.handle, local).error() == EAFNOSUPPORT);
  CHECK(client.Connect(udp.handle, local).error() == EAFNOSUPPORT);
  CHECK(client.Bind(udp.handle, std::vector<uint8_t>(1)).error() == EAFNOSUPPORT);
  CHECK(client.Listen(12345, 1).error() == EBADF);
}

TEST_CASE("the host's interfaces are told, lo among them") {
  Peer peer;
  Client client(peer.Take());
  bool loopback = false;
  uint32_t index = 0;
  for (const auto& entry : client.Interfaces()) {
    if (entry.family == 0 && std::string(entry.name.data()) == "lo") index = entry.index;
    if (entry.family == AF_INET && index != 0 && entry.index == index)
      loopback = entry.address[0] == 127 && entry.prefix_length == 8;
  }
  CHECK(loopback);
}

TEST_CASE("the gofer leaves with its client, and a request that is none ends it with a reason") {
  SECTION("gone") {
    Peer peer;
    CHECK(peer.End() == 0);
  }
  SECTION("short") {
    Peer peer;
    REQUIRE(send(peer.socket(), "x", 1, 0) == 1);
    CHECK(peer.End() == 1);
  }
  SECTION("a length that lies") {
    Peer peer;
    gofer::network::Request request;
    request.data_bytes = 0xffffffff;
    REQUIRE(send(peer.socket(), &request, sizeof(request), 0) > 0);
    CHECK(peer.End() == 1);
  }
  SECTION("an unknown operation is an error, not an end") {
    Peer peer;
    gofer::network::Request request;
    request.operation = static_cast<gofer::network::Operation>(99);
    REQUIRE(gofer::network::SendRequest(peer.socket(), request).ok());
    CHECK(gofer::network::ReceiveReply(peer.socket()).value().reply.error != 0);
    CHECK(peer.End() == 0);
  }
}

}  // namespace
