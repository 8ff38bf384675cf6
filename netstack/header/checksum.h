#pragma once

// The internet checksum (RFC 1071), its incremental update (RFC 1624), and pseudo-headers.

#include <cstddef>
#include <cstdint>
#include <span>

#include "netstack/stack/address.h"

namespace netstack {

// Sums 16-bit words in network order. Pieces may have odd lengths: the next one continues where the
// last ended.
class Checksum {
 public:
  void Add(std::span<const uint8_t> bytes);
  void AddWord(uint16_t value) { sum_ += value; }
  // The ones' complement sum, not inverted: what a partial checksum holds.
  uint16_t Sum() const;
  // What goes into the header; 0 over a block that includes a correct checksum.
  uint16_t Value() const { return static_cast<uint16_t>(~Sum()); }

 private:
  uint64_t sum_ = 0;  // Of words in network order.
  bool odd_ = false;
};

// The source, destination, length and protocol of RFC 9293 3.1 and RFC 8200 8.1.
void AddPseudoHeader(Checksum& checksum, const IpAddress& source, const IpAddress& destination,
                     uint8_t protocol, size_t length);

// `checksum` after one 16-bit word of what it covers changed.
uint16_t UpdateChecksum(uint16_t checksum, uint16_t from, uint16_t to);

}  // namespace netstack
