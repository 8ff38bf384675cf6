#pragma once

// Internet addresses inside the sentry: 16 bytes, IPv4 mapped into IPv6, port in host order.

#include <array>
#include <cstdint>
#include <string>

#include "platform/base/result.h"
#include "sentry/socket/socket.h"

namespace sentry {

struct InetAddress {
  std::array<uint8_t, 16> bytes = {};
  uint16_t port = 0;

  static InetAddress V4(uint32_t host_order, uint16_t port);
  static InetAddress V6Loopback(uint16_t port);

  bool is_v4() const;        // Mapped.
  uint32_t v4() const;       // Host order. Precondition: is_v4().
  bool is_any() const;       // :: or 0.0.0.0
  bool is_loopback() const;  // 127.0.0.0/8 or ::1
  bool is_multicast() const;
  bool is_broadcast() const;  // 255.255.255.255
  bool SameHost(const InetAddress& other) const { return bytes == other.bytes; }
  friend bool operator==(const InetAddress&, const InetAddress&) = default;
};

// From a guest's sockaddr for a socket of `family`. EINVAL if too short, EAFNOSUPPORT.
base::Result<InetAddress> ParseInetAddress(const SocketAddress& address, int family);
// For a guest's socket of `family`.
SocketAddress FormatInetAddress(const InetAddress& address, int family);
// The wildcard of the family.
InetAddress AnyAddress(int family);

}  // namespace sentry
