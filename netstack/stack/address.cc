#include "netstack/stack/address.h"

#include <arpa/inet.h>

#include <bit>

#include "platform/base/check.h"

namespace netstack {

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes[12] == 127;
  static constexpr std::array<uint8_t, 16> kOne = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
  return bytes == kOne;
}

IpAddress IpAddress::SolicitedNode() const {
  IpAddress group;
  group.bytes = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, bytes[13], bytes[14], bytes[15]};
  return group;
}

MacAddress IpAddress::MulticastMac() const {
  if (is_v4())
    return {{0x01, 0x00, 0x5e, static_cast<uint8_t>(bytes[13] & 0x7f), bytes[14], bytes[15]}};
  return {{0x33, 0x33, bytes[12], bytes[13], bytes[14], bytes[15]}};
}

std::string IpAddress::ToString() const {
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(is_v4() ? AF_INET : AF_INET6, Packed().data(), text, sizeof(text));
  return text;
}

IpAddress MustParseAddress(const char* text) {
  uint8_t raw[16];
  if (inet_pton(AF_INET, text, raw) == 1) return IpAddress::FromV4(raw);
  CHECK(inet_pton(AF_INET6, text, raw) == 1);
  return IpAddress::FromV6(raw);
}

unsigned CommonPrefixBits(const IpAddress& a, const IpAddress& b) {
  unsigned bits = 0;
  for (size_t i = 0; i < a.bytes.size(); ++i, bits += 8) {
    const auto different = static_cast<uint8_t>(a.bytes[i] ^ b.bytes[i]);
    if (different != 0) return bits + static_cast<unsigned>(std::countl_zero(different));
  }
  return bits;
}

bool Prefix::Contains(const IpAddress& other) const {
  if (address.is_v4() != other.is_v4()) return false;
  return CommonPrefixBits(address, other) >= bits + (address.is_v4() ? 96u : 0u);
}

IpAddress WithInterfaceIdentifier(const IpAddress& prefix, const MacAddress& mac) {
  IpAddress address = prefix;
  const auto& m = mac.bytes;
  const std::array<uint8_t, 8> identifier = {
      static_cast<uint8_t>(m[0] ^ 2), m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};
  std::memcpy(&address.bytes[8], identifier.data(), identifier.size());
  return address;
}

IpAddress LinkLocalFor(const MacAddress& mac) {
  IpAddress prefix;
  prefix.bytes[0] = 0xfe;
  prefix.bytes[1] = 0x80;
  return WithInterfaceIdentifier(prefix, mac);
}

}  // namespace netstack
