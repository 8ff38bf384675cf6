#pragma once

// Addresses as values. An IPv4 address is kept IPv4-mapped (::ffff:a.b.c.d, RFC 4291 2.5.5.2), so
// that one table and one TCP serve both families.

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

namespace netstack {

struct MacAddress {
  std::array<uint8_t, 6> bytes = {};
  static constexpr MacAddress Broadcast() { return {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}; }
  bool is_group() const { return (bytes[0] & 1) != 0; }
  bool is_zero() const { return *this == MacAddress(); }
  friend auto operator<=>(const MacAddress&, const MacAddress&) = default;
};

struct IpAddress {
  std::array<uint8_t, 16> bytes = {};

  static constexpr IpAddress V4(uint32_t host_order) {
    IpAddress address;
    address.bytes[10] = address.bytes[11] = 0xff;
    for (unsigned i = 0; i < 4; ++i)
      address.bytes[12 + i] = static_cast<uint8_t>(host_order >> (24 - 8 * i));
    return address;
  }
  static IpAddress FromV4(const uint8_t* network_order) {
    IpAddress address = V4(0);
    std::memcpy(&address.bytes[12], network_order, 4);
    return address;
  }
  static IpAddress FromV6(const uint8_t* network_order) {
    IpAddress address;
    std::memcpy(address.bytes.data(), network_order, 16);
    return address;
  }
  static constexpr IpAddress V6Any() { return {}; }
  static constexpr IpAddress Any(bool v4) { return v4 ? V4(0) : V6Any(); }

  bool is_v4() const {
    static constexpr uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return std::memcmp(bytes.data(), kMapped, sizeof(kMapped)) == 0;
  }
  // Precondition: is_v4().
  uint32_t v4() const {
    return (uint32_t{bytes[12]} << 24) | (uint32_t{bytes[13]} << 16) | (uint32_t{bytes[14]} << 8) |
           bytes[15];
  }
  // As on the wire: 4 or 16 bytes.
  std::span<const uint8_t> Packed() const {
    return is_v4() ? std::span<const uint8_t>(&bytes[12], 4) : std::span<const uint8_t>(bytes);
  }
  bool is_any() const { return *this == V4(0) || *this == V6Any(); }
  bool is_loopback() const;
  bool is_multicast() const { return is_v4() ? (bytes[12] & 0xf0) == 0xe0 : bytes[0] == 0xff; }
  bool is_limited_broadcast() const { return is_v4() && v4() == 0xffffffff; }
  bool is_link_local() const {
    return is_v4() ? bytes[12] == 169 && bytes[13] == 254
                   : bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80;
  }
  // ff02::1:ffXX:XXXX (RFC 4291 2.7.1). Precondition: !is_v4().
  IpAddress SolicitedNode() const;
  // The Ethernet address of a group (RFC 1112 6.4, RFC 2464 7). Precondition: is_multicast().
  MacAddress MulticastMac() const;
  // "10.0.0.1", "fe80::1" for messages and tests.
  std::string ToString() const;

  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const IpAddress& a) {
    return H::combine_contiguous(std::move(h), a.bytes.data(), a.bytes.size());
  }
};

// Dotted IPv4 or IPv6 text. Aborts on any other, so
// for constants of tests and tables only.
IpAddress MustParseAddress(const char* text);

// `bits` of an IPv4 prefix count from 0 to 32, of IPv6 to 128.
struct Prefix {
  IpAddress address;
  uint8_t bits = 0;
  bool Contains(const IpAddress& other) const;
  friend bool operator==(const Prefix&, const Prefix&) = default;
};

// How many leading bits are equal, of 128.
unsigned CommonPrefixBits(const IpAddress& a, const IpAddress& b);

// fe80:: with the modified EUI-64 of RFC 4291 appendix A.
IpAddress LinkLocalFor(const MacAddress& mac);
IpAddress WithInterfaceIdentifier(const IpAddress& prefix, const MacAddress& mac);

// Both ends of a flow, seen from here.
struct FlowKey {
  IpAddress local;
  IpAddress remote;
  uint16_t local_port = 0;
  uint16_t remote_port = 0;
  friend bool operator==(const FlowKey&, const FlowKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const FlowKey& k) {
    return H::combine(std::move(h), k.local, k.remote, k.local_port, k.remote_port);
  }
};

}  // namespace netstack
