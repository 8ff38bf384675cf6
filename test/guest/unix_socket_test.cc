// AF_UNIX sockets (unix(7)).

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "catch2/catch.hpp"

namespace {

struct Pair {
  int a = -1;
  int b = -1;
  explicit Pair(int type) {
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, type, 0, ends) == 0);
    a = ends[0];
    b = ends[1];
  }
  ~Pair() {
    if (a >= 0) close(a);
    if (b >= 0) close(b);
  }
  void CloseA() { close(std::exchange(a, -1)); }
  void CloseB() { close(std::exchange(b, -1)); }
};

struct Address {
  sockaddr_un raw = {};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&raw); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&raw); }
};

Address PathAddress(const std::string& path) {
  Address address;
  address.raw.sun_family = AF_UNIX;
  std::memcpy(address.raw.sun_path, path.c_str(), path.size() + 1);
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  return address;
}

Address AbstractAddress(const std::string& name) {
  Address address;
  address.raw.sun_family = AF_UNIX;
  std::memcpy(address.raw.sun_path + 1, name.data(), name.size());
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

std::string UniqueName(const char* what) {
  return std::string("ravelin.") + what + "." + std::to_string(getpid());
}

short Poll(int fd, short events) {
  pollfd polled = {fd, events, 0};
  REQUIRE(poll(&polled, 1, 0) >= 0);
  return polled.revents;
}

// sendmsg with descriptors.
ssize_t SendFds(int socket_fd, const std::vector<int>& fds, const std::string& text) {
  std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
  iovec part = {const_cast<char*>(text.data()), text.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  std::memcpy(CMSG_DATA(header), fds.data(), fds.size() * sizeof(int));
  return sendmsg(socket_fd, &message, MSG_NOSIGNAL);
}

struct Received {
  ssize_t count = -1;
  int flags = 0;
  std::string text;
  std::vector<int> fds;
  bool has_credentials = false;
  ucred credentials = {};
};

Received Receive(int socket_fd, size_t text_room, size_t control_room, int flags = 0) {
  Received received;
  std::vector<char> text(text_room);
  std::vector<char> control(control_room);
  iovec part = {text.data(), text.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  received.count = recvmsg(socket_fd, &message, flags);
  if (received.count < 0) return received;
  received.flags = message.msg_flags;
  received.text.assign(text.data(), std::min(text_room, static_cast<size_t>(received.count)));
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_type == SCM_RIGHTS) {
      const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      received.fds.resize(count);
      std::memcpy(received.fds.data(), CMSG_DATA(header), count * sizeof(int));
    } else if (header->cmsg_type == SCM_CREDENTIALS) {
      received.has_credentials = true;
      std::memcpy(&received.credentials, CMSG_DATA(header), sizeof(ucred));
    }
  }
  return received;
}

}  // namespace

TEST_CASE("a stream pair carries bytes both ways without boundaries", "[unix]") {
  Pair pair(SOCK_STREAM);
  REQUIRE(write(pair.a, "hello ", 6) == 6);
  REQUIRE(write(pair.a, "world", 5) == 5);
  char buffer[32];
  REQUIRE(read(pair.b, buffer, sizeof(buffer)) == 11);
  CHECK(std::string(buffer, 11) == "hello world");
  REQUIRE(send(pair.b, "back", 4, 0) == 4);
  CHECK(recv(pair.a, buffer, 2, 0) == 2);
  CHECK(recv(pair.a, buffer, sizeof(buffer), 0) == 2);
}

TEST_CASE("datagrams and sequenced packets keep their boundaries", "[unix]") {
  const int type = GENERATE(SOCK_DGRAM, SOCK_SEQPACKET);
  Pair pair(type);
  REQUIRE(send(pair.a, "one", 3, 0) == 3);
  REQUIRE(send(pair.a, "three", 5, 0) == 5);
  char buffer[32];
  CHECK(recv(pair.b, buffer, sizeof(buffer), 0) == 3);
  // What does not fit is lost; MSG_TRUNC tells how much there was.
  CHECK(recv(pair.b, buffer, 2, MSG_TRUNC) == 5);
  CHECK(recv(pair.b, buffer, sizeof(buffer), MSG_DONTWAIT) == -1);
  CHECK(errno == EAGAIN);
}

TEST_CASE("MSG_PEEK leaves the bytes", "[unix]") {
  const int type = GENERATE(SOCK_STREAM, SOCK_DGRAM);
  Pair pair(type);
  REQUIRE(send(pair.a, "abc", 3, 0) == 3);
  char buffer[8];
  CHECK(recv(pair.b, buffer, sizeof(buffer), MSG_PEEK) == 3);
  CHECK(recv(pair.b, buffer, sizeof(buffer), 0) == 3);
}

TEST_CASE("MSG_WAITALL waits for all bytes of a stream", "[unix]") {
  Pair pair(SOCK_STREAM);
  const pid_t child = fork();
  if (child == 0) {
    (void)!write(pair.a, "ab", 2);
    usleep(30000);
    (void)!write(pair.a, "cdef", 4);
    _exit(0);
  }
  char buffer[6];
  CHECK(recv(pair.b, buffer, sizeof(buffer), MSG_WAITALL) == 6);
  CHECK(std::string(buffer, 6) == "abcdef");
  waitpid(child, nullptr, 0);
}

TEST_CASE("the end of a stream reads as 0 and writes as EPIPE", "[unix]") {
  Pair pair(SOCK_STREAM);
  REQUIRE(write(pair.b, "last", 4) == 4);
  pair.CloseB();
  char buffer[8];
  CHECK(read(pair.a, buffer, sizeof(buffer)) == 4);
  CHECK(read(pair.a, buffer, sizeof(buffer)) == 0);
  CHECK(send(pair.a, "x", 1, MSG_NOSIGNAL) == -1);
  CHECK(errno == EPIPE);
  CHECK(Poll(pair.a, POLLIN | POLLOUT | POLLRDHUP) == (POLLIN | POLLOUT | POLLRDHUP | POLLHUP));
}

TEST_CASE("a write to a closed peer raises SIGPIPE", "[unix]") {
  Pair pair(SOCK_STREAM);
  const pid_t child = fork();
  if (child == 0) {
    close(pair.b);
    usleep(1000);
    signal(SIGPIPE, SIG_DFL);
    (void)!write(pair.a, "x", 1);
    _exit(1);
  }
  pair.CloseB();
  int status = 0;
  waitpid(child, &status, 0);
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE));
}

TEST_CASE("closing with unread bytes resets the peer", "[unix]") {
  Pair pair(SOCK_STREAM);
  REQUIRE(write(pair.a, "unread", 6) == 6);
  pair.CloseB();
  char byte = 0;
  CHECK(read(pair.a, &byte, 1) == -1);
  CHECK(errno == ECONNRESET);
  CHECK(read(pair.a, &byte, 1) == 0);
}

TEST_CASE("shutdown ends one direction", "[unix]") {
  Pair pair(SOCK_STREAM);
  REQUIRE(shutdown(pair.a, SHUT_WR) == 0);
  char byte = 0;
  CHECK(read(pair.b, &byte, 1) == 0);
  CHECK(write(pair.b, "x", 1) == 1);
  CHECK(read(pair.a, &byte, 1) == 1);
  CHECK(send(pair.a, "x", 1, MSG_NOSIGNAL) == -1);
  CHECK(errno == EPIPE);
  CHECK(Poll(pair.b, POLLIN | POLLRDHUP) == (POLLIN | POLLRDHUP));
  CHECK(shutdown(pair.a, 17) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("a server accepts connections at a path", "[unix]") {
  const std::string path = "/tmp/" + UniqueName("path");
  unlink(path.c_str());
  const Address address = PathAddress(path);
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  REQUIRE(listener >= 0);
  REQUIRE(bind(listener, address.get(), address.length) == 0);
  struct stat status = {};
  REQUIRE(stat(path.c_str(), &status) == 0);
  CHECK(S_ISSOCK(status.st_mode));
  const int client = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(connect(client, address.get(), address.length) == -1);
  CHECK(errno == ECONNREFUSED);
  REQUIRE(listen(listener, 4) == 0);
  CHECK(Poll(listener, POLLIN) == 0);
  REQUIRE(connect(client, address.get(), address.length) == 0);
  CHECK(Poll(listener, POLLIN) == POLLIN);
  Address seen;
  seen.length = sizeof(seen.raw);
  const int server = accept4(listener, seen.get(), &seen.length, SOCK_NONBLOCK | SOCK_CLOEXEC);
  REQUIRE(server >= 0);
  CHECK(seen.length == sizeof(sa_family_t));  // The client has no name.
  CHECK((fcntl(server, F_GETFL) & O_NONBLOCK) != 0);
  seen.length = sizeof(seen.raw);
  REQUIRE(getpeername(client, seen.get(), &seen.length) == 0);
  CHECK(seen.length == address.length);
  CHECK(std::string(seen.raw.sun_path) == path);
  seen.length = sizeof(seen.raw);
  REQUIRE(getsockname(server, seen.get(), &seen.length) == 0);
  CHECK(std::string(seen.raw.sun_path) == path);
  REQUIRE(write(client, "hi", 2) == 2);
  char buffer[4];
  CHECK(read(server, buffer, sizeof(buffer)) == 2);
  CHECK(connect(client, address.get(), address.length) == -1);
  CHECK(errno == EISCONN);
  // The file stays when the socket goes, and refuses.
  close(server);
  close(listener);
  const int late = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(connect(late, address.get(), address.length) == -1);
  CHECK(errno == ECONNREFUSED);
  CHECK(bind(late, address.get(), address.length) == -1);
  CHECK(errno == EADDRINUSE);
  CHECK(unlink(path.c_str()) == 0);
  CHECK(connect(late, address.get(), address.length) == -1);
  CHECK(errno == ENOENT);
  close(late);
  close(client);
}

TEST_CASE("abstract names are free again when their socket closes", "[unix]") {
  const Address address = AbstractAddress(UniqueName("abstract"));
  const int first = socket(AF_UNIX, SOCK_DGRAM, 0);
  const int second = socket(AF_UNIX, SOCK_DGRAM, 0);
  REQUIRE(bind(first, address.get(), address.length) == 0);
  CHECK(bind(second, address.get(), address.length) == -1);
  CHECK(errno == EADDRINUSE);
  CHECK(bind(first, address.get(), address.length) == -1);
  CHECK(errno == EINVAL);
  close(first);
  CHECK(bind(second, address.get(), address.length) == 0);
  Address seen;
  seen.length = sizeof(seen.raw);
  REQUIRE(getsockname(second, seen.get(), &seen.length) == 0);
  CHECK(seen.length == address.length);
  CHECK(seen.raw.sun_path[0] == 0);
  close(second);
}

TEST_CASE("binding to the family alone picks an abstract name", "[unix]") {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  Address address;
  address.raw.sun_family = AF_UNIX;
  REQUIRE(bind(fd, address.get(), sizeof(sa_family_t)) == 0);
  address.length = sizeof(address.raw);
  REQUIRE(getsockname(fd, address.get(), &address.length) == 0);
  CHECK(address.length == offsetof(sockaddr_un, sun_path) + 6);
  CHECK(address.raw.sun_path[0] == 0);
  close(fd);
}

TEST_CASE("datagrams go to names and tell where they came from", "[unix]") {
  const Address server_address = AbstractAddress(UniqueName("server"));
  const Address client_address = AbstractAddress(UniqueName("client"));
  const int server = socket(AF_UNIX, SOCK_DGRAM, 0);
  const int client = socket(AF_UNIX, SOCK_DGRAM, 0);
  REQUIRE(bind(server, server_address.get(), server_address.length) == 0);
  REQUIRE(bind(client, client_address.get(), client_address.length) == 0);
  REQUIRE(sendto(client, "ping", 4, 0, server_address.get(), server_address.length) == 4);
  char buffer[8];
  Address from;
  from.length = sizeof(from.raw);
  REQUIRE(recvfrom(server, buffer, sizeof(buffer), 0, from.get(), &from.length) == 4);
  REQUIRE(from.length == client_address.length);
  CHECK(std::memcmp(&from.raw, &client_address.raw, from.length) == 0);
  CHECK(send(server, "x", 1, 0) == -1);
  CHECK(errno == ENOTCONN);
  REQUIRE(connect(server, client_address.get(), client_address.length) == 0);
  CHECK(send(server, "pong", 4, 0) == 4);
  // A connected socket hears its peer only.
  const int stranger = socket(AF_UNIX, SOCK_DGRAM, 0);
  CHECK(sendto(stranger, "x", 1, 0, server_address.get(), server_address.length) == -1);
  CHECK(errno == EPERM);
  close(client);
  CHECK(send(server, "x", 1, 0) == -1);
  CHECK(errno == ECONNREFUSED);
  close(stranger);
  close(server);
}

TEST_CASE("a stream socket cannot reach a datagram socket", "[unix]") {
  const std::string path = "/tmp/" + UniqueName("type");
  const Address by_path = PathAddress(path);
  const Address abstract = AbstractAddress(UniqueName("type"));
  const int datagram = socket(AF_UNIX, SOCK_DGRAM, 0);
  const int other = socket(AF_UNIX, SOCK_DGRAM, 0);
  REQUIRE(bind(datagram, by_path.get(), by_path.length) == 0);
  REQUIRE(bind(other, abstract.get(), abstract.length) == 0);
  const int stream = socket(AF_UNIX, SOCK_STREAM, 0);
  CHECK(connect(stream, by_path.get(), by_path.length) == -1);
  CHECK(errno == EPROTOTYPE);
  // Abstract names are names of one type.
  CHECK(connect(stream, abstract.get(), abstract.length) == -1);
  CHECK(errno == ECONNREFUSED);
  CHECK(bind(stream, abstract.get(), abstract.length) == 0);
  close(stream);
  close(other);
  close(datagram);
  unlink(path.c_str());
}

TEST_CASE("descriptors travel in messages", "[unix][rights]") {
  const int type = GENERATE(SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET);
  Pair pair(type);
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  REQUIRE(SendFds(pair.a, {ends[1]}, "x") == 1);
  close(ends[1]);
  const Received received = Receive(pair.b, 8, 64, MSG_CMSG_CLOEXEC);
  REQUIRE(received.fds.size() == 1);
  CHECK(received.text == "x");
  CHECK((fcntl(received.fds[0], F_GETFD) & FD_CLOEXEC) != 0);
  REQUIRE(write(received.fds[0], "!", 1) == 1);
  char byte = 0;
  CHECK(read(ends[0], &byte, 1) == 1);
  close(received.fds[0]);
  CHECK(read(ends[0], &byte, 1) == 0);
  close(ends[0]);
}

TEST_CASE("a stream read ends with the message that brought descriptors", "[unix][rights]") {
  Pair pair(SOCK_STREAM);
  REQUIRE(write(pair.a, "ab", 2) == 2);
  REQUIRE(SendFds(pair.a, {pair.a}, "cd") == 2);
  REQUIRE(write(pair.a, "ef", 2) == 2);
  const Received first = Receive(pair.b, 16, 64);
  CHECK(first.text == "abcd");
  REQUIRE(first.fds.size() == 1);
  close(first.fds[0]);
  CHECK(Receive(pair.b, 16, 64).text == "ef");
}

TEST_CASE("descriptors without room for them are dropped and reported", "[unix][rights]") {
  Pair pair(SOCK_DGRAM);
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  REQUIRE(SendFds(pair.a, {ends[1], ends[1]}, "x") == 1);
  close(ends[1]);
  const Received received = Receive(pair.b, 8, CMSG_LEN(sizeof(int)));
  CHECK((received.flags & MSG_CTRUNC) != 0);
  for (const int fd : received.fds) close(fd);
  char byte = 0;
  CHECK(read(ends[0], &byte, 1) == 0);
  close(ends[0]);
}

TEST_CASE("a bad descriptor number sends nothing", "[unix][rights]") {
  Pair pair(SOCK_DGRAM);
  CHECK(SendFds(pair.a, {9999}, "x") == -1);
  CHECK(errno == EBADF);
  CHECK(SendFds(pair.a, std::vector<int>(254, pair.a), "x") == -1);
  CHECK(errno == EINVAL);
  char byte = 0;
  CHECK(recv(pair.b, &byte, 1, MSG_DONTWAIT) == -1);
}

TEST_CASE("sockets that only hold each other are freed", "[unix][rights]") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  for (int round = 0; round < 50; ++round) {
    Pair pair(SOCK_DGRAM);
    // The pipe's writing end lies in a ring that nobody can reach any more.
    REQUIRE(SendFds(pair.a, {pair.b, ends[1]}, "x") == 1);
    REQUIRE(SendFds(pair.b, {pair.a}, "x") == 1);
  }
  close(ends[1]);
  // Some kernels collect at the next close of a unix socket.
  for (int i = 0; i < 3; ++i) Pair trigger(SOCK_STREAM);
  pollfd polled = {ends[0], POLLIN, 0};
  CHECK(poll(&polled, 1, 5000) == 1);
  CHECK((polled.revents & POLLHUP) != 0);
  close(ends[0]);
}

TEST_CASE("credentials come with SO_PASSCRED", "[unix][credentials]") {
  Pair pair(SOCK_STREAM);
  const int on = 1;
  REQUIRE(setsockopt(pair.b, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0);
  REQUIRE(write(pair.a, "x", 1) == 1);
  const Received received = Receive(pair.b, 8, 64);
  REQUIRE(received.has_credentials);
  CHECK(received.credentials.pid == getpid());
  CHECK(received.credentials.uid == getuid());
  CHECK(received.credentials.gid == getgid());
}

TEST_CASE("SO_PEERCRED tells who made the pair", "[unix][credentials]") {
  Pair pair(SOCK_STREAM);
  ucred peer = {};
  socklen_t length = sizeof(peer);
  REQUIRE(getsockopt(pair.a, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0);
  CHECK(peer.pid == getpid());
  CHECK(peer.uid == geteuid());
}

TEST_CASE("a full stream refuses, polls unwritable, and recovers", "[unix][limits]") {
  Pair pair(SOCK_STREAM);
  REQUIRE(fcntl(pair.a, F_SETFL, O_NONBLOCK) == 0);
  const std::string piece(4096, 'x');
  size_t total = 0;
  ssize_t count = 0;
  while (total < (64u << 20) && (count = write(pair.a, piece.data(), piece.size())) > 0) {
    total += static_cast<size_t>(count);
  }
  CHECK(count == -1);
  CHECK(errno == EAGAIN);
  CHECK((Poll(pair.a, POLLOUT) & POLLOUT) == 0);
  std::vector<char> all(total);
  size_t got = 0;
  while (got < total) {
    count = read(pair.b, all.data() + got, total - got);
    if (count <= 0) break;
    got += static_cast<size_t>(count);
  }
  CHECK(got == total);
  CHECK((Poll(pair.a, POLLOUT) & POLLOUT) != 0);
}

TEST_CASE("a blocked write goes on when the reader reads", "[unix]") {
  Pair pair(SOCK_STREAM);
  const std::string text(2 << 20, 'y');
  const pid_t child = fork();
  if (child == 0) {
    _exit(write(pair.a, text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  std::vector<char> buffer(65536);
  size_t total = 0;
  while (total < text.size()) {
    const ssize_t count = read(pair.b, buffer.data(), buffer.size());
    if (count <= 0) break;
    total += static_cast<size_t>(count);
  }
  CHECK(total == text.size());
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

TEST_CASE("SO_RCVTIMEO ends a read with EAGAIN", "[unix]") {
  Pair pair(SOCK_STREAM);
  const timeval timeout = {0, 50000};
  REQUIRE(setsockopt(pair.a, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) == 0);
  char byte = 0;
  CHECK(recv(pair.a, &byte, 1, 0) == -1);
  CHECK(errno == EAGAIN);
  CHECK(read(pair.a, &byte, 1) == -1);
  CHECK(errno == EAGAIN);
  const timeval wrong = {0, 2000000};
  CHECK(setsockopt(pair.a, SOL_SOCKET, SO_RCVTIMEO, &wrong, sizeof(wrong)) == -1);
  CHECK(errno == EDOM);
}

TEST_CASE("a full backlog refuses a client that does not wait", "[unix][limits]") {
  const Address address = AbstractAddress(UniqueName("backlog"));
  const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
  REQUIRE(bind(listener, address.get(), address.length) == 0);
  REQUIRE(listen(listener, 1) == 0);
  std::vector<int> clients;
  int error = 0;
  for (int i = 0; i < 5 && error == 0; ++i) {
    clients.push_back(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
    if (connect(clients.back(), address.get(), address.length) != 0) error = errno;
  }
  CHECK(error == EAGAIN);
  CHECK(clients.size() == 3);  // One more than the backlog, and the refused one.
  // Connections that were never accepted are reset when the listener closes.
  close(listener);
  char byte = 0;
  CHECK(read(clients[0], &byte, 1) == -1);
  CHECK(errno == ECONNRESET);
  for (const int fd : clients) close(fd);
}

TEST_CASE("sendmmsg and recvmmsg move several messages", "[unix]") {
  Pair pair(SOCK_DGRAM);
  char texts[3][4] = {"one", "two", "six"};
  mmsghdr messages[3] = {};
  iovec parts[3];
  for (int i = 0; i < 3; ++i) {
    parts[i] = {texts[i], 3};
    messages[i].msg_hdr.msg_iov = &parts[i];
    messages[i].msg_hdr.msg_iovlen = 1;
  }
  REQUIRE(sendmmsg(pair.a, messages, 3, 0) == 3);
  CHECK(messages[2].msg_len == 3);
  std::memset(texts, 0, sizeof(texts));
  REQUIRE(recvmmsg(pair.b, messages, 3, MSG_WAITFORONE, nullptr) == 3);
  CHECK(std::string(texts[1], 3) == "two");
}

TEST_CASE("options of sockets read as they were set", "[unix]") {
  Pair pair(SOCK_SEQPACKET);
  int value = 0;
  socklen_t length = sizeof(value);
  REQUIRE(getsockopt(pair.a, SOL_SOCKET, SO_TYPE, &value, &length) == 0);
  CHECK(value == SOCK_SEQPACKET);
  REQUIRE(getsockopt(pair.a, SOL_SOCKET, SO_DOMAIN, &value, &length) == 0);
  CHECK(value == AF_UNIX);
  value = 10000;
  REQUIRE(setsockopt(pair.a, SOL_SOCKET, SO_SNDBUF, &value, sizeof(value)) == 0);
  REQUIRE(getsockopt(pair.a, SOL_SOCKET, SO_SNDBUF, &value, &length) == 0);
  CHECK(value == 20000);
  CHECK(getsockopt(pair.a, SOL_SOCKET, 9999, &value, &length) == -1);
  CHECK(errno == ENOPROTOOPT);
  CHECK(getsockopt(STDIN_FILENO, SOL_SOCKET, SO_TYPE, &value, &length) == -1);
  CHECK((errno == ENOTSOCK || errno == EBADF));
}

TEST_CASE("FIONREAD tells what can be read", "[unix]") {
  Pair stream(SOCK_STREAM);
  REQUIRE(write(stream.a, "abcde", 5) == 5);
  int count = 0;
  REQUIRE(ioctl(stream.b, FIONREAD, &count) == 0);
  CHECK(count == 5);
  Pair datagram(SOCK_DGRAM);
  REQUIRE(write(datagram.a, "ab", 2) == 2);
  REQUIRE(write(datagram.a, "cde", 3) == 3);
  REQUIRE(ioctl(datagram.b, FIONREAD, &count) == 0);
  CHECK(count == 2);
}

TEST_CASE("bad arguments to socket and socketpair", "[unix]") {
  CHECK(socket(AF_UNIX, 77, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(socket(AF_UNIX, SOCK_RDM, 0) == -1);
  CHECK(errno == ESOCKTNOSUPPORT);
  CHECK(socket(AF_UNIX, SOCK_STREAM, 99) == -1);
  CHECK(errno == EPROTONOSUPPORT);
  CHECK(socket(1000, SOCK_STREAM, 0) == -1);
  CHECK(errno == EAFNOSUPPORT);
  int ends[2];
  CHECK(socketpair(AF_INET, SOCK_STREAM, 0, ends) == -1);
  CHECK(errno == EOPNOTSUPP);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, nullptr) == -1);
  CHECK(errno == EFAULT);
}
