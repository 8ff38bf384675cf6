// Packets, checksums, addresses, timers: what the protocols stand on.

#include <numeric>

#include "catch2/catch.hpp"
#include "netstack/header/bytes.h"
#include "netstack/header/siphash.h"
#include "netstack/header/tcp.h"
#include "netstack/stack/packet.h"
#include "netstack/stack/timer.h"
#include "netstack/tcp/byte_queue.h"
#include "test/unit/netstack/simulator.h"

namespace {

using namespace netstack;

std::vector<uint8_t> Numbers(size_t size) {
  std::vector<uint8_t> bytes(size);
  std::iota(bytes.begin(), bytes.end(), uint8_t{3});
  return bytes;
}

uint16_t SlowChecksum(std::span<const uint8_t> bytes) {
  uint32_t sum = 0;
  for (size_t i = 0; i < bytes.size(); i += 2) {
    sum += uint32_t{bytes[i]} << 8;
    if (i + 1 < bytes.size()) sum += bytes[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<uint16_t>(~sum);
}

TEST_CASE("a checksum of the example in RFC 1071", "[netstack][checksum]") {
  const uint8_t bytes[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  Checksum sum;
  sum.Add(bytes);
  CHECK(sum.Sum() == 0xddf2);
}

TEST_CASE("a checksum does not depend on how the bytes are cut", "[netstack][checksum]") {
  const auto bytes = Numbers(301);
  const uint16_t whole = SlowChecksum(bytes);
  for (size_t first = 0; first <= bytes.size(); first += 7) {
    for (size_t second = first; second <= bytes.size(); second += 13) {
      Checksum sum;
      sum.Add(std::span(bytes).first(first));
      sum.Add(std::span(bytes).subspan(first, second - first));
      sum.Add(std::span(bytes).subspan(second));
      REQUIRE(sum.Value() == whole);
    }
  }
}

TEST_CASE("a checksum is updated for one word as if it were made anew", "[netstack][checksum]") {
  auto bytes = Numbers(20);
  const uint16_t before = SlowChecksum(bytes);
  const uint16_t from = LoadBe16(&bytes[8]);
  StoreBe16(&bytes[8], 0xbeef);
  CHECK(UpdateChecksum(before, from, 0xbeef) == SlowChecksum(bytes));
}

TEST_CASE("a packet's header area takes what straddles slices", "[netstack][packet]") {
  const auto bytes = Numbers(100);
  PacketPtr packet = Packet::New();
  packet->Append(Slice::Copy(std::span(bytes).first(10)));
  packet->Append(Slice::Copy(std::span(bytes).subspan(10, 5)));
  packet->Append(Slice::Copy(std::span(bytes).subspan(15)));
  CHECK(packet->Pull(101) == nullptr);
  const uint8_t* p = packet->Pull(30);
  REQUIRE(p != nullptr);
  CHECK(std::equal(p, p + 30, bytes.begin()));
  CHECK(packet->size() == 100);
  packet->TrimFront(20);
  packet->Truncate(60);
  std::vector<uint8_t> rest(60);
  packet->CopyTo(rest);
  CHECK(std::equal(rest.begin(), rest.end(), bytes.begin() + 20));
  packet->Truncate(5);
  p = packet->Pull(5);
  CHECK(std::equal(p, p + 5, bytes.begin() + 20));
}

TEST_CASE("a header longer than the header area is malformed, not fatal", "[netstack][packet]") {
  const auto bytes = Numbers(400);
  PacketPtr packet = Packet::New();
  packet->Append(Slice::Copy(std::span(bytes).first(8)));
  packet->Append(Slice::Copy(std::span(bytes).subspan(8)));
  CHECK(packet->Pull(Packet::kHeaderBytesMax + 1) == nullptr);
  CHECK(packet->Pull(Packet::kHeaderBytesMax) != nullptr);
}

TEST_CASE("slices share their bytes", "[netstack][packet]") {
  const auto bytes = Numbers(1000);
  PacketPtr packet = Packet::FromBytes(bytes);
  const PacketPtr copy = packet->Clone();
  packet->TrimFront(500);
  CHECK(copy->size() == 1000);
  CHECK(copy->slices()[0].slab == packet->slices()[0].slab);
}

TEST_CASE("a byte queue gathers small pieces and gives any part", "[netstack][tcp]") {
  tcp::ByteQueue queue;
  std::vector<uint8_t> expected;
  for (size_t i = 0; i < 3000; ++i) {
    const std::vector<uint8_t> piece(1 + i % 37, static_cast<uint8_t>(i));
    expected.insert(expected.end(), piece.begin(), piece.end());
    queue.Append(Slice::Copy(piece));
    if (i % 5 == 0) {
      const size_t drop = std::min<size_t>(queue.size(), i % 60);
      queue.DropFront(drop);
      expected.erase(expected.begin(), expected.begin() + static_cast<ptrdiff_t>(drop));
    }
  }
  REQUIRE(queue.size() == expected.size());
  for (size_t from = 0; from < expected.size(); from += 997) {
    Slices part;
    const size_t count = std::min<size_t>(5000, expected.size() - from);
    queue.Get(from, count, part);
    std::vector<uint8_t> bytes;
    for (const Slice& slice : part)
      bytes.insert(bytes.end(), slice.bytes().begin(), slice.bytes().end());
    REQUIRE(
        std::equal(bytes.begin(), bytes.end(), expected.begin() + static_cast<ptrdiff_t>(from)));
    CHECK(part.size() < 20);
  }
}

TEST_CASE("addresses know their kind", "[netstack][address]") {
  CHECK(MustParseAddress("127.3.4.5").is_loopback());
  CHECK(MustParseAddress("::1").is_loopback());
  CHECK(MustParseAddress("224.0.0.1").is_multicast());
  CHECK(MustParseAddress("ff02::1").is_multicast());
  CHECK(MustParseAddress("fe80::1").is_link_local());
  CHECK(MustParseAddress("10.1.2.3").ToString() == "10.1.2.3");
  CHECK(MustParseAddress("fd00::7").SolicitedNode() == MustParseAddress("ff02::1:ff00:7"));
  CHECK((Prefix{MustParseAddress("10.1.0.0"), 16}).Contains(MustParseAddress("10.1.255.3")));
  CHECK(!(Prefix{MustParseAddress("10.1.0.0"), 16}).Contains(MustParseAddress("10.2.0.1")));
  CHECK(!(Prefix{MustParseAddress("0.0.0.0"), 0}).Contains(MustParseAddress("::1")));
  CHECK((Prefix{MustParseAddress("::"), 0}).Contains(MustParseAddress("fd00::1")));
  CHECK(LinkLocalFor({{2, 0, 0, 0, 0, 1}}) == MustParseAddress("fe80::ff:fe00:1"));
}

TEST_CASE("SipHash gives its reference value", "[netstack][siphash]") {
  // Appendix A of the paper has 15 bytes; words here: of 16 bytes 00..0f the reference says this.
  SipHash hash({0x0706050403020100, 0x0f0e0d0c0b0a0908});
  std::array<uint8_t, 16> bytes;
  std::iota(bytes.begin(), bytes.end(), uint8_t{0});
  CHECK(hash.Add(bytes).Value() == 0x3f2acc7f57c29bdb);
}

TEST_CASE("TCP options survive being written and read", "[netstack][tcp]") {
  tcp::Options options;
  options.mss = 1460;
  options.window_scale = 7;
  options.sack_permitted = true;
  options.has_timestamp = true;
  options.timestamp = 0x01020304;
  options.timestamp_echo = 0x05060708;
  uint8_t bytes[40];
  const size_t size = tcp::WriteOptions(options, bytes);
  CHECK(size % 4 == 0);
  const auto read = tcp::ParseOptions({bytes, size}, true);
  CHECK(read.mss == 1460);
  CHECK(read.window_scale == 7);
  CHECK(read.sack_permitted);
  CHECK(read.timestamp == 0x01020304);
  CHECK(read.timestamp_echo == 0x05060708);
}

TEST_CASE("as many SACK blocks are sent as there is room for", "[netstack][tcp]") {
  tcp::Options options;
  options.has_timestamp = true;
  options.sack_count = 4;
  for (uint32_t i = 0; i < 4; ++i) options.sacks[i] = {i * 100, i * 100 + 50};
  uint8_t bytes[40];
  const size_t size = tcp::WriteOptions(options, bytes);
  CHECK(size == 40);
  CHECK(tcp::ParseOptions({bytes, size}, false).sack_count == 3);
}

TEST_CASE("TCP options that lie about their length are left alone", "[netstack][tcp]") {
  const uint8_t bytes[] = {2, 4, 5, 0xb4, 3, 200, 1, 1};
  const auto read = tcp::ParseOptions(bytes, true);
  CHECK(read.mss == 1460);
  CHECK(!read.window_scale);
  const uint8_t zero[] = {8, 0, 0, 0};
  CHECK(!tcp::ParseOptions(zero, true).has_timestamp);
}

class Ring final : public TimerTarget {
 public:
  explicit Ring(const Clock& clock) : clock_(clock) {}
  void OnTimer() override { fired.push_back(clock_.NowNs()); }
  std::vector<int64_t> fired;

 private:
  const Clock& clock_;
};

TEST_CASE("timers fire in time, over all levels of the wheel", "[netstack][timer]") {
  test::SimulatedClock clock;
  TimerWheel wheel(clock, {});
  std::vector<std::pair<int64_t, std::shared_ptr<Ring>>> rings;
  for (const int64_t ms : {1, 2, 63, 64, 65, 1000, 4095, 4096, 4097, 300000, 20000000}) {
    auto ring = std::make_shared<Ring>(clock);
    const int64_t when = clock.now_ns + ms * kNsPerMs;
    wheel.Arm(*ring, when);
    rings.emplace_back(when, std::move(ring));
  }
  int wakes = 0;
  while (wheel.NextNs() != kNever) {
    clock.now_ns = std::max(clock.now_ns, wheel.NextNs());
    wheel.Run();
    REQUIRE(++wakes < 1000);
  }
  for (const auto& [when, ring] : rings) {
    REQUIRE(ring->fired.size() == 1);
    CHECK(ring->fired[0] >= when);
    CHECK(ring->fired[0] <= when + kNsPerMs);
  }
}

TEST_CASE("a timer that is armed for earlier moves, for later stays", "[netstack][timer]") {
  test::SimulatedClock clock;
  int earlier = 0;
  TimerWheel wheel(clock, [&] { ++earlier; });
  auto ring = std::make_shared<Ring>(clock);
  wheel.Arm(*ring, clock.now_ns + 100 * kNsPerMs);
  wheel.Arm(*ring, clock.now_ns + 500 * kNsPerMs);
  wheel.Arm(*ring, clock.now_ns + 10 * kNsPerMs);
  CHECK(earlier == 2);
  clock.now_ns += kNsPerSecond;
  wheel.Run();
  CHECK(ring->fired.size() == 1);
  CHECK(wheel.NextNs() == kNever);
}

TEST_CASE("a timer's target may go while it is armed", "[netstack][timer]") {
  test::SimulatedClock clock;
  TimerWheel wheel(clock, {});
  auto ring = std::make_shared<Ring>(clock);
  wheel.Arm(*ring, clock.now_ns + kNsPerMs);
  ring.reset();
  CHECK(wheel.NextNs() == kNever);
}

}  // namespace
