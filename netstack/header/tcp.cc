#include "netstack/header/tcp.h"

#include "netstack/header/bytes.h"

namespace netstack::tcp {
namespace {

constexpr uint8_t kEnd = 0;
constexpr uint8_t kNoOperation = 1;
constexpr uint8_t kMss = 2;
constexpr uint8_t kWindowScale = 3;
constexpr uint8_t kSackPermitted = 4;
constexpr uint8_t kSack = 5;
constexpr uint8_t kTimestamp = 8;
constexpr uint8_t kWindowScaleMax = 14;  // RFC 7323 2.3

void ParseOne(uint8_t kind, std::span<const uint8_t> value, bool syn, Options& options) {
  switch (kind) {
    case kMss:
      if (syn && value.size() == 2) options.mss = LoadBe16(value.data());
      break;
    case kWindowScale:
      if (syn && value.size() == 1)
        options.window_scale = value[0] > kWindowScaleMax ? kWindowScaleMax : value[0];
      break;
    case kSackPermitted:
      if (syn && value.empty()) options.sack_permitted = true;
      break;
    case kTimestamp:
      if (value.size() != 8) break;
      options.has_timestamp = true;
      options.timestamp = LoadBe32(value.data());
      options.timestamp_echo = LoadBe32(value.data() + 4);
      break;
    case kSack:
      if (syn || value.size() % 8 != 0) break;
      for (size_t at = 0; at < value.size() && options.sack_count < Options::kSackBlocksMax;
           at += 8)
        options.sacks[options.sack_count++] = {LoadBe32(&value[at]), LoadBe32(&value[at + 4])};
      break;
    default:
      break;
  }
}

}  // namespace

Options ParseOptions(std::span<const uint8_t> bytes, bool syn) {
  Options options;
  while (!bytes.empty() && bytes[0] != kEnd) {
    if (bytes[0] == kNoOperation) {
      bytes = bytes.subspan(1);
      continue;
    }
    if (bytes.size() < 2 || bytes[1] < 2 || bytes[1] > bytes.size()) break;
    ParseOne(bytes[0], bytes.subspan(2, bytes[1] - 2u), syn, options);
    bytes = bytes.subspan(bytes[1]);
  }
  return options;
}

size_t WriteOptions(const Options& options, uint8_t* out) {
  constexpr size_t kRoom = kHeaderBytesMax - kHeaderBytes;
  uint8_t* p = out;
  if (options.mss) {
    *p++ = kMss;
    *p++ = 4;
    StoreBe16(p, *options.mss);
    p += 2;
  }
  if (options.sack_permitted) {
    *p++ = kNoOperation;
    *p++ = kNoOperation;
    *p++ = kSackPermitted;
    *p++ = 2;
  }
  if (options.has_timestamp) {
    *p++ = kNoOperation;
    *p++ = kNoOperation;
    *p++ = kTimestamp;
    *p++ = 10;
    StoreBe32(p, options.timestamp);
    StoreBe32(p + 4, options.timestamp_echo);
    p += 8;
  }
  if (options.window_scale) {
    *p++ = kNoOperation;
    *p++ = kWindowScale;
    *p++ = 3;
    *p++ = *options.window_scale;
  }
  const size_t left = kRoom - static_cast<size_t>(p - out);
  const size_t fit = left < 12 ? 0 : (left - 4) / 8;
  const size_t count = options.sack_count < fit ? options.sack_count : fit;
  if (count != 0) {
    *p++ = kNoOperation;
    *p++ = kNoOperation;
    *p++ = kSack;
    *p++ = static_cast<uint8_t>(2 + 8 * count);
    for (size_t i = 0; i < count; ++i, p += 8) {
      StoreBe32(p, options.sacks[i].start);
      StoreBe32(p + 4, options.sacks[i].end);
    }
  }
  return static_cast<size_t>(p - out);
}

size_t ReadHeader(const uint8_t* bytes, Header& header) {
  header.source_port = LoadBe16(bytes);
  header.destination_port = LoadBe16(bytes + 2);
  header.sequence = LoadBe32(bytes + 4);
  header.acknowledgment = LoadBe32(bytes + 8);
  header.flags = bytes[13];
  header.window = LoadBe16(bytes + 14);
  header.urgent = LoadBe16(bytes + 18);
  const size_t size = (bytes[12] >> 4) * 4u;
  return size < kHeaderBytes ? 0 : size;
}

void WriteHeader(const Header& header, size_t header_bytes, uint8_t* out) {
  StoreBe16(out, header.source_port);
  StoreBe16(out + 2, header.destination_port);
  StoreBe32(out + 4, header.sequence);
  StoreBe32(out + 8, header.acknowledgment);
  out[12] = static_cast<uint8_t>((header_bytes / 4) << 4);
  out[13] = header.flags;
  StoreBe16(out + 14, header.window);
  StoreBe16(out + 16, 0);
  StoreBe16(out + 18, header.urgent);
}

}  // namespace netstack::tcp
