#include "gofer/network/server.h"

#include <linux/netlink.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gofer/network/interface_list.h"
#include "gofer/network/options.h"
#include "platform/base/log.h"

namespace gofer::network {
namespace {

using base::Errno;
using base::Result;

// The sentry's own limit of descriptors is lower.
constexpr size_t kSocketsMax = 65536;
constexpr int kFlags = SOCK_NONBLOCK | SOCK_CLOEXEC;

// An address for bind or connect: of the internet, or none (AF_UNSPEC dissolves an association).
bool IsInternetAddress(std::span<const uint8_t> address, bool may_be_none) {
  if (address.size() < sizeof(sa_family_t)) return false;
  sa_family_t family;
  std::memcpy(&family, address.data(), sizeof(family));
  return family == AF_INET || family == AF_INET6 || (may_be_none && family == AF_UNSPEC);
}

const sockaddr* AsSockaddr(const Request& request) {
  return reinterpret_cast<const sockaddr*>(request.data.data());
}

}  // namespace

Server::Server(base::Fd socket)
    : socket_(std::move(socket)),
      netlink_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) {}

absl::Status Server::Run() {
  while (true) {
    const auto request = ReceiveRequest(socket_.get());
    if (!request.ok()) {
      if (request.error() == EPIPE || request.error() == ECONNRESET) return absl::OkStatus();
      LOG_ERROR("the sentry sent what is no request: errno %d", request.error().value());
      return absl::InvalidArgumentError("the sentry sent what is no request");
    }
    const auto answer = Perform(request.value());
    Reply reply;
    int fd = -1;
    if (answer.ok()) {
      reply.value = answer.value().value;
      reply.data_bytes = static_cast<uint32_t>(answer.value().data.size());
      std::copy(answer.value().data.begin(), answer.value().data.end(), reply.data.begin());
      fd = answer.value().fd;
    } else {
      reply.error = answer.error().value();
    }
    const auto sent = SendReply(socket_.get(), reply, fd);
    if (!sent.ok()) return absl::OkStatus();  // The sentry has gone.
  }
}

Result<Server::Answer> Server::Perform(const Request& request) {
  if (request.operation == Operation::kSocket) return MakeSocket(request);
  if (request.operation == Operation::kInterfaces) {
    const int32_t number = request.arguments[0];
    if (number == 0) interfaces_ = ListInterfaces(netlink_.get());
    if (number < 0 || static_cast<size_t>(number) >= interfaces_.size()) return Errno(ENOENT);
    Answer answer;
    answer.data.resize(sizeof(InterfaceEntry));
    std::memcpy(answer.data.data(), &interfaces_[static_cast<size_t>(number)],
                sizeof(InterfaceEntry));
    return answer;
  }
  const auto found = sockets_.find(request.handle);
  if (found == sockets_.end()) return Errno(EBADF);
  const int fd = found->second.get();
  const auto checked = [](int result) -> Result<Answer> {
    if (result < 0) return base::LastErrno();
    return Answer{};
  };
  switch (request.operation) {
    case Operation::kBind:
      if (!IsInternetAddress(request.view(), true)) return Errno(EAFNOSUPPORT);
      return checked(bind(fd, AsSockaddr(request), request.data_bytes));
    case Operation::kConnect:
      if (!IsInternetAddress(request.view(), true)) return Errno(EAFNOSUPPORT);
      return checked(connect(fd, AsSockaddr(request), request.data_bytes));
    case Operation::kListen:
      return checked(listen(fd, request.arguments[0]));
    case Operation::kAccept:
      return Accept(fd);
    case Operation::kLocalAddress:
    case Operation::kPeerAddress: {
      Answer answer;
      answer.data.resize(sizeof(sockaddr_storage));
      auto length = static_cast<socklen_t>(answer.data.size());
      auto* address = reinterpret_cast<sockaddr*>(answer.data.data());
      const int result = request.operation == Operation::kLocalAddress
                             ? getsockname(fd, address, &length)
                             : getpeername(fd, address, &length);
      if (result != 0) return base::LastErrno();
      answer.data.resize(std::min<size_t>(length, answer.data.size()));
      return answer;
    }
    case Operation::kGetOption:
      return GetOption(fd, request);
    case Operation::kSetOption:
      return SetOption(fd, request);
    case Operation::kShutdown:
      return checked(shutdown(fd, request.arguments[0]));
    case Operation::kClose:
      sockets_.erase(found);
      return Answer{};
    default:
      return Errno(EBADMSG);
  }
}

Result<Server::Answer> Server::MakeSocket(const Request& request) {
  const auto [family, type, protocol] = request.arguments;
  if (family != AF_INET && family != AF_INET6) return Errno(EAFNOSUPPORT);
  if (type == SOCK_STREAM) {
    if (protocol != 0 && protocol != IPPROTO_TCP) return Errno(EPROTONOSUPPORT);
  } else if (type == SOCK_DGRAM) {
    const int echo = family == AF_INET ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
    if (protocol != 0 && protocol != IPPROTO_UDP && protocol != IPPROTO_UDPLITE &&
        protocol != echo) {
      return Errno(EPROTONOSUPPORT);
    }
  } else {
    return Errno(ESOCKTNOSUPPORT);
  }
  base::Fd fd(socket(family, type | kFlags, protocol));
  if (!fd) return base::LastErrno();
  return Remember(std::move(fd));
}

Result<Server::Answer> Server::Accept(int fd) {
  base::Fd connection(accept4(fd, nullptr, nullptr, kFlags));
  if (!connection) return base::LastErrno();
  return Remember(std::move(connection));
}

Result<Server::Answer> Server::Remember(base::Fd fd) {
  if (sockets_.size() >= kSocketsMax) return Errno(ENFILE);
  while (next_handle_ == 0 || next_handle_ > INT32_MAX || sockets_.contains(next_handle_)) {
    next_handle_ = next_handle_ >= INT32_MAX ? 1 : next_handle_ + 1;
  }
  Answer answer;
  answer.value = static_cast<int32_t>(next_handle_);
  answer.fd = fd.get();
  sockets_.emplace(next_handle_++, std::move(fd));
  return answer;
}

Result<Server::Answer> Server::GetOption(int fd, const Request& request) {
  const auto [level, name, unused] = request.arguments;
  if (!MayGetOption(level, name)) return Errno(ENOPROTOOPT);
  Answer answer;
  answer.data.resize(kDataBytesMax);
  auto length = static_cast<socklen_t>(answer.data.size());
  if (getsockopt(fd, level, name, answer.data.data(), &length) != 0) return base::LastErrno();
  answer.data.resize(std::min<size_t>(length, answer.data.size()));
  return answer;
}

Result<Server::Answer> Server::SetOption(int fd, const Request& request) {
  const auto [level, name, unused] = request.arguments;
  if (!MaySetOption(level, name)) return Errno(ENOPROTOOPT);
  if (setsockopt(fd, level, name, request.data.data(), request.data_bytes) != 0)
    return base::LastErrno();
  return Answer{};
}

}  // namespace gofer::network
