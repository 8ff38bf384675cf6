#include "syscalls/abi/socket.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "catch2/catch.hpp"
#include "sentry/socket/network_namespace.h"
#include "sentry/socket/rights.h"
#include "test/support/test_task.h"

namespace {

using test::TestTask;
using Fds = std::array<int32_t, 2>;

constexpr uint64_t kName = TestTask::kPage + 512;
constexpr uint64_t kLength = TestTask::kPage + 1024;
constexpr uint64_t kMessage = TestTask::kPage + 1536;
constexpr uint64_t kVector = TestTask::kPage + 1664;
constexpr uint64_t kControl = TestTask::kPage + 1792;
constexpr uint64_t kData = TestTask::kArea;

struct Pair {
  int64_t a = -1;
  int64_t b = -1;
  Pair(TestTask& task, int type) {
    REQUIRE(task.Call(SYS_socketpair, AF_UNIX, type | SOCK_NONBLOCK, 0, TestTask::kPage) == 0);
    const auto fds = task.Peek<Fds>(TestTask::kPage);
    a = fds[0];
    b = fds[1];
  }
};

int64_t Send(TestTask& task, int64_t fd, const std::string& text, int flags = MSG_NOSIGNAL) {
  task.PokeBytes(kData, std::as_bytes(std::span(text)));
  return task.Call(SYS_sendto, fd, kData, text.size(), flags, 0, 0);
}

std::string Receive(TestTask& task, int64_t fd, size_t size, int flags = 0) {
  const int64_t count = task.Call(SYS_recvfrom, fd, kData, size, flags, 0, 0);
  if (count < 0) return "error " + std::to_string(-count);
  std::string text(static_cast<size_t>(count), '\0');
  task.PeekBytes(kData, std::as_writable_bytes(std::span(text)));
  return text;
}

// Writes a message header for one vector of `size` bytes at kData.
void PokeMessage(TestTask& task, uint64_t size, uint64_t control_length) {
  syscalls::abi::MessageHeader header;
  header.vectors = kVector;
  header.vector_count = 1;
  header.control = control_length == 0 ? 0 : kControl;
  header.control_length = control_length;
  task.Poke(kVector, std::array<uint64_t, 2>{kData, size});
  task.Poke(kMessage, header);
}

struct Rights {
  syscalls::abi::ControlHeader header{sizeof(syscalls::abi::ControlHeader) + 8, SOL_SOCKET,
                                      SCM_RIGHTS};
  std::array<int32_t, 2> fds = {};
};

int64_t SendRights(TestTask& task, int64_t fd, int64_t first, int64_t second) {
  Rights rights;
  rights.fds = {static_cast<int32_t>(first), static_cast<int32_t>(second)};
  task.Poke(kControl, rights);
  PokeMessage(task, 1, sizeof(rights));
  return task.Call(SYS_sendmsg, fd, kMessage, MSG_NOSIGNAL);
}

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

TEST_CASE("socketpair leaves no descriptor behind when the guest faults",
          "[syscalls][socket][efault]") {
  const uint64_t short_by = GENERATE(range(1, 9));
  TestTask task;
  const size_t before = task.fds().Numbers().size();
  CHECK(task.Call(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, TestTask::kPageEnd - 8 + short_by) ==
        -EFAULT);
  CHECK(task.fds().Numbers().size() == before);
}

TEST_CASE("a stream hands over bytes, then waits, then ends", "[syscalls][socket]") {
  TestTask task;
  const Pair pair(task, SOCK_STREAM);
  CHECK(Receive(task, pair.b, 8) == "error 11");
  CHECK(Send(task, pair.a, "hello") == 5);
  CHECK(Receive(task, pair.b, 2, MSG_PEEK) == "he");
  CHECK(Receive(task, pair.b, 2) == "he");
  CHECK(Receive(task, pair.b, 8) == "llo");
  CHECK(task.Call(SYS_shutdown, pair.a, SHUT_WR) == 0);
  CHECK(Receive(task, pair.b, 8).empty());
  CHECK(Send(task, pair.a, "x") == -EPIPE);
}

TEST_CASE("a datagram is cut to the buffer, and a stream is not", "[syscalls][socket]") {
  TestTask task;
  const Pair datagram(task, SOCK_DGRAM);
  CHECK(Send(task, datagram.a, "hello") == 5);
  CHECK(task.Call(SYS_recvfrom, datagram.b, kData, 2, MSG_TRUNC, 0, 0) == 5);
  CHECK(Receive(task, datagram.b, 8) == "error 11");
}

TEST_CASE("a fault while receiving a stream loses nothing", "[syscalls][socket][efault]") {
  TestTask task;
  const Pair pair(task, SOCK_STREAM);
  REQUIRE(Send(task, pair.a, "hello") == 5);
  CHECK(task.Call(SYS_recvfrom, pair.b, TestTask::kPageEnd, 5, 0, 0, 0) == -EFAULT);
  CHECK(task.Call(SYS_recvfrom, pair.b, TestTask::kPageEnd - 2, 5, 0, 0, 0) == 2);
  CHECK(Receive(task, pair.b, 8) == "llo");
}

TEST_CASE("the buffer of a stream is bounded", "[syscalls][socket][limits]") {
  TestTask task;
  const Pair pair(task, SOCK_STREAM);
  size_t total = 0;
  int64_t count = 0;
  while ((count = task.Call(SYS_sendto, pair.a, kData, TestTask::kAreaBytes, MSG_NOSIGNAL, 0, 0)) >
         0) {
    total += static_cast<size_t>(count);
    REQUIRE(total < (1u << 20));
  }
  CHECK(count == -EAGAIN);
  size_t got = 0;
  while ((count = task.Call(SYS_recvfrom, pair.b, kData, TestTask::kAreaBytes, 0, 0, 0)) > 0) {
    got += static_cast<size_t>(count);
  }
  CHECK(got == total);
}

TEST_CASE("descriptors arrive with the lowest free numbers", "[syscalls][socket][rights]") {
  TestTask task;
  const Pair pair(task, SOCK_STREAM);
  REQUIRE(SendRights(task, pair.a, pair.a, pair.b) == 1);
  PokeMessage(task, 8, 64);
  REQUIRE(task.Call(SYS_recvmsg, pair.b, kMessage, 0) == 1);
  const auto header = task.Peek<syscalls::abi::MessageHeader>(kMessage);
  CHECK(header.control_length == 24);
  CHECK(header.flags == 0);
  const auto rights = task.Peek<Rights>(kControl);
  CHECK(rights.fds == Fds{static_cast<int32_t>(pair.b) + 1, static_cast<int32_t>(pair.b) + 2});
}

TEST_CASE("no descriptor appears when the control buffer faults",
          "[syscalls][socket][rights][efault]") {
  TestTask task;
  const Pair pair(task, SOCK_STREAM);
  REQUIRE(SendRights(task, pair.a, pair.a, pair.b) == 1);
  const size_t before = task.fds().Numbers().size();
  PokeMessage(task, 8, 64);
  auto header = task.Peek<syscalls::abi::MessageHeader>(kMessage);
  header.control = TestTask::kPageEnd;
  task.Poke(kMessage, header);
  CHECK(task.Call(SYS_recvmsg, pair.b, kMessage, 0) == -EFAULT);
  CHECK(task.fds().Numbers().size() == before);
}

TEST_CASE("a ring of sockets in flight is freed", "[syscalls][socket][rights]") {
  TestTask task;
  std::weak_ptr<sentry::File> watched;
  {
    const Pair pair(task, SOCK_DGRAM);
    watched = task.fds().Get(static_cast<int32_t>(pair.a)).value();
    REQUIRE(SendRights(task, pair.a, pair.a, pair.b) == 1);
    REQUIRE(SendRights(task, pair.b, pair.a, pair.b) == 1);
    CHECK(task.Call(SYS_close, pair.a) == 0);
    CHECK(task.Call(SYS_close, pair.b) == 0);
  }
  task.kernel().network().rights().Collect();
  CHECK(watched.expired());
}

TEST_CASE("a socket in flight that can still be received stays alive",
          "[syscalls][socket][rights]") {
  TestTask task;
  const Pair carrier(task, SOCK_DGRAM);
  const Pair passenger(task, SOCK_DGRAM);
  const std::weak_ptr<sentry::File> watched =
      task.fds().Get(static_cast<int32_t>(passenger.a)).value();
  REQUIRE(SendRights(task, carrier.a, passenger.a, passenger.b) == 1);
  CHECK(task.Call(SYS_close, passenger.a) == 0);
  CHECK(task.Call(SYS_close, passenger.b) == 0);
  task.kernel().network().rights().Collect();
  CHECK_FALSE(watched.expired());
  // A receive without room for control messages drops it.
  CHECK(Receive(task, carrier.b, 8).size() == 1);
  CHECK(watched.expired());
}

TEST_CASE("TCP connects over loopback", "[syscalls][socket][inet]") {
  TestTask task;
  const int64_t listener = task.Call(SYS_socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  task.Poke(kName, Loopback(0));
  REQUIRE(task.Call(SYS_bind, listener, kName, 16) == 0);
  REQUIRE(task.Call(SYS_listen, listener, 1) == 0);
  CHECK(task.Call(SYS_accept, listener, 0, 0) == -EAGAIN);
  task.Poke(kLength, int32_t{16});
  REQUIRE(task.Call(SYS_getsockname, listener, kName, kLength) == 0);
  const int64_t client = task.Call(SYS_socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  CHECK(task.Call(SYS_connect, client, kName, 16) == -EINPROGRESS);
  const int64_t server = task.Call(SYS_accept, listener, 0, 0);
  REQUIRE(server >= 0);
  CHECK(Send(task, client, "ping") == 4);
  CHECK(Receive(task, server, 8) == "ping");
  CHECK(task.Call(SYS_close, client) == 0);
  CHECK(Receive(task, server, 8).empty());
}

TEST_CASE("what is not loopback is unreachable", "[syscalls][socket][inet]") {
  TestTask task;
  const int type = GENERATE(SOCK_STREAM, SOCK_DGRAM);
  const int64_t fd = task.Call(SYS_socket, AF_INET, type, 0);
  sockaddr_in address = Loopback(80);
  address.sin_addr.s_addr = htonl(0x08080808);
  task.Poke(kName, address);
  CHECK(task.Call(SYS_connect, fd, kName, 16) == -ENETUNREACH);
}

TEST_CASE("datagrams to a full receiver are lost, not kept", "[syscalls][socket][inet][limits]") {
  TestTask task;
  const int64_t server = task.Call(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
  task.Poke(kName, Loopback(0));
  REQUIRE(task.Call(SYS_bind, server, kName, 16) == 0);
  task.Poke(kLength, int32_t{16});
  REQUIRE(task.Call(SYS_getsockname, server, kName, kLength) == 0);
  const int64_t client = task.Call(SYS_socket, AF_INET, SOCK_DGRAM, 0);
  for (int i = 0; i < 100; ++i)
    REQUIRE(task.Call(SYS_sendto, client, kData, 10000, 0, kName, 16) == 10000);
  int received = 0;
  while (task.Call(SYS_recvfrom, server, kData, 10000, 0, 0, 0) == 10000) ++received;
  CHECK(received > 5);
  CHECK(received < 50);
}

TEST_CASE("option lengths and levels are checked", "[syscalls][socket]") {
  TestTask task;
  const int64_t fd = task.Call(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
  task.Poke(kData, int32_t{1});
  CHECK(task.Call(SYS_setsockopt, fd, SOL_SOCKET, SO_PASSCRED, kData, 3) == -EINVAL);
  CHECK(task.Call(SYS_setsockopt, fd, SOL_SOCKET, SO_PASSCRED, kData, -1) == -EINVAL);
  CHECK(task.Call(SYS_setsockopt, fd, SOL_SOCKET, SO_PASSCRED, TestTask::kPageEnd, 4) == -EFAULT);
  CHECK(task.Call(SYS_setsockopt, fd, IPPROTO_TCP, 1, kData, 4) == -ENOPROTOOPT);
  task.Poke(kLength, int32_t{2});
  CHECK(task.Call(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, kData, kLength) == 0);
  CHECK(task.Peek<int32_t>(kLength) == 2);
  CHECK(task.Call(SYS_bind, fd, kName, 200) == -EINVAL);
  CHECK(task.Call(SYS_bind, 99, kName, 16) == -EBADF);
}

}  // namespace
