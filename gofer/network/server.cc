#include "gofer/network/server.h"

#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gofer/network/client.h"
#include "gofer/network/options.h"
#include "platform/base/log.h"

namespace gofer::network {
namespace {

using base::Errno;
using base::Result;

// The sentry's own limit of descriptors is lower.
constexpr size_t kSocketsMax = 65536;
constexpr int kFlags = SOCK_NONBLOCK | SOCK_CLOEXEC;

uint8_t PrefixLength(std::span<const uint8_t> mask) {
  int bits = 0;
  for (const uint8_t byte : mask) bits += std::popcount(byte);
  return static_cast<uint8_t>(bits);
}

template <typename T>
T As(const sockaddr* address) {
  T value;
  std::memcpy(&value, address, sizeof(value));
  return value;
}

void FillAddress(const ifaddrs& from, InterfaceEntry& entry) {
  if (from.ifa_addr->sa_family == AF_INET) {
    const auto address = As<sockaddr_in>(from.ifa_addr);
    std::memcpy(entry.address.data(), &address.sin_addr, sizeof(address.sin_addr));
    if (from.ifa_netmask != nullptr) {
      const auto mask = As<sockaddr_in>(from.ifa_netmask);
      entry.prefix_length = PrefixLength(
          std::span(reinterpret_cast<const uint8_t*>(&mask.sin_addr), sizeof(mask.sin_addr)));
    }
    const bool local = entry.address[0] == 127;
    entry.scope = local ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
  } else {
    const auto address = As<sockaddr_in6>(from.ifa_addr);
    std::memcpy(entry.address.data(), &address.sin6_addr, sizeof(address.sin6_addr));
    if (from.ifa_netmask != nullptr) {
      const auto mask = As<sockaddr_in6>(from.ifa_netmask);
      entry.prefix_length = PrefixLength(
          std::span(reinterpret_cast<const uint8_t*>(&mask.sin6_addr), sizeof(mask.sin6_addr)));
    }
    entry.scope = IN6_IS_ADDR_LOOPBACK(&address.sin6_addr)    ? RT_SCOPE_HOST
                  : IN6_IS_ADDR_LINKLOCAL(&address.sin6_addr) ? RT_SCOPE_LINK
                                                              : RT_SCOPE_UNIVERSE;
  }
  entry.family = from.ifa_addr->sa_family;
}

uint32_t MtuOf(int socket, const char* name) {
  ifreq request = {};
  std::strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
  return ioctl(socket, SIOCGIFMTU, &request) == 0 ? static_cast<uint32_t>(request.ifr_mtu) : 0;
}

std::vector<InterfaceEntry> LookAtInterfaces() {
  std::vector<InterfaceEntry> entries;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) {
    LOG_WARNING("cannot list the host's interfaces: errno %d; the guest will see none", errno);
    return entries;
  }
  const base::Fd probe(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || each->ifa_name == nullptr) continue;
    if (entries.size() >= static_cast<size_t>(kInterfaceEntriesMax)) break;
    InterfaceEntry entry;
    std::strncpy(entry.name.data(), each->ifa_name, entry.name.size() - 1);
    entry.index = if_nametoindex(entry.name.data());
    entry.flags = each->ifa_flags;
    if (each->ifa_addr->sa_family == AF_PACKET) {
      const auto link = As<sockaddr_ll>(each->ifa_addr);
      entry.mtu = MtuOf(probe.get(), entry.name.data());
      entry.hardware_type = link.sll_hatype;
      std::copy_n(link.sll_addr, entry.hardware_address.size(), entry.hardware_address.begin());
    } else if (each->ifa_addr->sa_family == AF_INET || each->ifa_addr->sa_family == AF_INET6) {
      FillAddress(*each, entry);
    } else {
      continue;
    }
    entries.push_back(entry);
  }
  freeifaddrs(list);
  return entries;
}

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

Server::Server(base::Fd socket) : socket_(std::move(socket)), interfaces_(LookAtInterfaces()) {}

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
  const auto [level, name, room] = request.arguments;
  if (!MayGetOption(level, name)) return Errno(ENOPROTOOPT);
  Answer answer;
  answer.data.resize(std::clamp<size_t>(static_cast<size_t>(std::max(room, 0)), 0, kDataBytesMax));
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
