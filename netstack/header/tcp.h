#pragma once

// The TCP header (RFC 9293 3.1) and its options, read and written. Options that are not known are
// skipped; MD5 and AO are not spoken (a segment that needs them is refused by its peer).

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace netstack::tcp {

inline constexpr size_t kHeaderBytes = 20;
inline constexpr size_t kHeaderBytesMax = 60;

inline constexpr uint8_t kFin = 1;
inline constexpr uint8_t kSyn = 2;
inline constexpr uint8_t kRst = 4;
inline constexpr uint8_t kPsh = 8;
inline constexpr uint8_t kAck = 16;
inline constexpr uint8_t kUrg = 32;
inline constexpr uint8_t kEce = 64;
inline constexpr uint8_t kCwr = 128;

// Sequence numbers (RFC 9293 3.4): modulo 2^32.
constexpr bool Before(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }
constexpr bool After(uint32_t a, uint32_t b) { return Before(b, a); }
constexpr bool AtMost(uint32_t a, uint32_t b) { return !Before(b, a); }
constexpr uint32_t MaxSeq(uint32_t a, uint32_t b) { return Before(a, b) ? b : a; }
constexpr uint32_t MinSeq(uint32_t a, uint32_t b) { return Before(a, b) ? a : b; }

struct SackBlock {
  uint32_t start = 0;
  uint32_t end = 0;
  friend bool operator==(const SackBlock&, const SackBlock&) = default;
};

struct Options {
  static constexpr size_t kSackBlocksMax = 4;
  std::optional<uint16_t> mss;
  std::optional<uint8_t> window_scale;
  bool sack_permitted = false;
  bool has_timestamp = false;
  uint32_t timestamp = 0;
  uint32_t timestamp_echo = 0;
  size_t sack_count = 0;
  std::array<SackBlock, kSackBlocksMax> sacks = {};
};

// Unparsable tails are ignored, as Linux does: what came before them holds.
Options ParseOptions(std::span<const uint8_t> bytes, bool syn);
// Padded to 32 bits; returns the size. `out` has kHeaderBytesMax - kHeaderBytes bytes, and as many
// SACK blocks are written as fit.
size_t WriteOptions(const Options& options, uint8_t* out);

struct Header {
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint32_t sequence = 0;
  uint32_t acknowledgment = 0;
  uint8_t flags = 0;
  uint16_t window = 0;  // Not scaled.
  uint16_t urgent = 0;
};

// `size` of the header, with options; 0 if it is malformed. `bytes` has at least kHeaderBytes.
size_t ReadHeader(const uint8_t* bytes, Header& header);
void WriteHeader(const Header& header, size_t header_bytes, uint8_t* out);

}  // namespace netstack::tcp
