#include "sentry/socket/inet_address.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace sentry {
namespace {

constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr uint32_t kIpv6AddressBytesMin = 24;  // SIN6_LEN_RFC2133: without the scope.

}  // namespace

InetAddress InetAddress::V4(uint32_t host_order, uint16_t port) {
  InetAddress address;
  std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), address.bytes.begin());
  for (size_t i = 0; i < 4; ++i)
    address.bytes[12 + i] = static_cast<uint8_t>(host_order >> (24 - 8 * i));
  address.port = port;
  return address;
}

InetAddress InetAddress::V6Loopback(uint16_t port) {
  InetAddress address;
  address.bytes[15] = 1;
  address.port = port;
  return address;
}

bool InetAddress::is_v4() const {
  return std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin());
}

uint32_t InetAddress::v4() const {
  return uint32_t{bytes[12]} << 24 | uint32_t{bytes[13]} << 16 | uint32_t{bytes[14]} << 8 |
         bytes[15];
}

bool InetAddress::is_any() const {
  if (is_v4()) return v4() == 0;
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t byte) { return byte == 0; });
}

bool InetAddress::is_loopback() const {
  if (is_v4()) return bytes[12] == 127;
  return SameHost(V6Loopback(0));
}

bool InetAddress::is_multicast() const {
  return is_v4() ? (bytes[12] & 0xf0) == 0xe0 : bytes[0] == 0xff;
}
bool InetAddress::is_broadcast() const { return is_v4() && v4() == 0xffffffff; }

InetAddress AnyAddress(int family) {
  return family == AF_INET ? InetAddress::V4(0, 0) : InetAddress();
}

base::Result<InetAddress> ParseInetAddress(const SocketAddress& address, int family) {
  if (family == AF_INET) {
    if (address.length < sizeof(sockaddr_in)) return base::Errno(EINVAL);
    sockaddr_in raw = {};
    std::memcpy(&raw, address.bytes.data(), sizeof(raw));
    // bind(2) to AF_UNSPEC and INADDR_ANY is an old habit that Linux forgives.
    const bool forgiven = raw.sin_family == AF_UNSPEC && raw.sin_addr.s_addr == 0;
    if (raw.sin_family != AF_INET && !forgiven) return base::Errno(EAFNOSUPPORT);
    return InetAddress::V4(ntohl(raw.sin_addr.s_addr), ntohs(raw.sin_port));
  }
  if (address.length < kIpv6AddressBytesMin) return base::Errno(EINVAL);
  sockaddr_in6 raw = {};
  std::memcpy(&raw, address.bytes.data(), std::min<size_t>(sizeof(raw), address.length));
  if (raw.sin6_family != AF_INET6) return base::Errno(EAFNOSUPPORT);
  InetAddress result;
  std::copy(std::begin(raw.sin6_addr.s6_addr), std::end(raw.sin6_addr.s6_addr),
            result.bytes.begin());
  result.port = ntohs(raw.sin6_port);
  return result;
}

SocketAddress FormatInetAddress(const InetAddress& address, int family) {
  SocketAddress result;
  if (family == AF_INET) {
    sockaddr_in raw = {};
    raw.sin_family = AF_INET;
    raw.sin_port = htons(address.port);
    if (address.is_v4()) raw.sin_addr.s_addr = htonl(address.v4());
    std::memcpy(result.bytes.data(), &raw, sizeof(raw));
    result.length = sizeof(raw);
    return result;
  }
  sockaddr_in6 raw = {};
  raw.sin6_family = AF_INET6;
  raw.sin6_port = htons(address.port);
  std::copy(address.bytes.begin(), address.bytes.end(), std::begin(raw.sin6_addr.s6_addr));
  std::memcpy(result.bytes.data(), &raw, sizeof(raw));
  result.length = sizeof(raw);
  return result;
}

}  // namespace sentry
