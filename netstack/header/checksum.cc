#include "netstack/header/checksum.h"

#include <cstring>

namespace netstack {
namespace {

uint16_t Fold(uint64_t sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

// The sum in host order of the words as they lie: byte order does not matter to a ones' complement
// sum but for one swap at the end (RFC 1071 2(B)).
uint64_t SumBlock(const uint8_t* p, size_t size) {
  uint64_t a = 0;
  uint64_t b = 0;
  while (size >= 32) {
    uint64_t words[4];
    std::memcpy(words, p, sizeof(words));
    a += (words[0] & 0xffffffff) + (words[0] >> 32);
    b += (words[1] & 0xffffffff) + (words[1] >> 32);
    a += (words[2] & 0xffffffff) + (words[2] >> 32);
    b += (words[3] & 0xffffffff) + (words[3] >> 32);
    p += 32;
    size -= 32;
  }
  while (size >= 2) {
    uint16_t word;
    std::memcpy(&word, p, sizeof(word));
    a += word;
    p += 2;
    size -= 2;
  }
  if (size != 0) a += *p;  // Little endian: the padded word's low byte.
  return a + b;
}

}  // namespace

void Checksum::Add(std::span<const uint8_t> bytes) {
  if (bytes.empty()) return;
  if (odd_) {
    sum_ += bytes[0];
    bytes = bytes.subspan(1);
    odd_ = false;
  }
  const uint16_t folded = Fold(SumBlock(bytes.data(), bytes.size()));
  sum_ += __builtin_bswap16(folded);
  odd_ = bytes.size() % 2 != 0;
}

uint16_t Checksum::Sum() const { return Fold(sum_); }

void AddPseudoHeader(Checksum& checksum, const IpAddress& source, const IpAddress& destination,
                     uint8_t protocol, size_t length) {
  checksum.Add(source.Packed());
  checksum.Add(destination.Packed());
  checksum.AddWord(protocol);
  checksum.AddWord(static_cast<uint16_t>(length >> 16));
  checksum.AddWord(static_cast<uint16_t>(length));
}

uint16_t UpdateChecksum(uint16_t checksum, uint16_t from, uint16_t to) {
  // RFC 1624 equation 3.
  uint32_t sum = static_cast<uint16_t>(~checksum) + uint32_t{static_cast<uint16_t>(~from)} + to;
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

}  // namespace netstack
