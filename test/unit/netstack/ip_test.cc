// What is below the transports: neighbours, both versions of IP, fragments, ICMP, routes.

#include <optional>

#include "netstack/ip/icmp.h"
#include "netstack/ip/ipv4.h"
#include "netstack/ip/ipv6.h"
#include "netstack/ip/ndp.h"
#include "netstack/udp/table.h"
#include "test/unit/netstack/script.h"

namespace {

using namespace netstack;
using test::Script;
using test::Simulator;

struct Arrived {
  std::vector<uint8_t> bytes;
  IpAddress source;
  uint16_t port;
};

class Inbox final : public udp::Receiver {
 public:
  void OnDatagram(udp::Datagram& datagram) override {
    std::vector<uint8_t> bytes(datagram.payload.size());
    datagram.payload.CopyTo(bytes);
    arrived.push_back({std::move(bytes), datagram.source, datagram.source_port});
  }
  void OnError(const TransportError& error) override { errors.push_back(error.error); }
  std::vector<Arrived> arrived;
  std::vector<int> errors;
};

std::shared_ptr<Inbox> Listen(Stack& stack, uint16_t port, const IpAddress& local) {
  auto inbox = std::make_shared<Inbox>();
  stack.udp().Bind(inbox, {.local = local, .remote = IpAddress::V6Any(), .local_port = port});
  return inbox;
}

std::vector<uint8_t> Bytes(size_t size) {
  std::vector<uint8_t> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + i / 256);
  return bytes;
}

bool SendUdp(Stack& stack, const IpAddress& to, std::span<const uint8_t> bytes) {
  return stack.udp()
      .Send({.source = IpAddress::Any(to.is_v4()),
             .destination = to,
             .source_port = 1111,
             .destination_port = 53},
            Packet::FromBytes(bytes))
      .ok();
}

TEST_CASE("datagrams of any size arrive, in fragments where they must", "[netstack][udp]") {
  const bool v4 = GENERATE(true, false);
  const size_t size = GENERATE(size_t{0}, size_t{1}, size_t{1452}, size_t{1472}, size_t{1473},
                               size_t{8000}, size_t{65000});
  CAPTURE(v4, size);
  Simulator net;
  const auto inbox = Listen(net.b.stack, 53, IpAddress::V6Any());
  REQUIRE(SendUdp(net.a.stack, v4 ? net.b.v4 : net.b.v6, Bytes(size)));
  net.Run(kNsPerSecond);
  REQUIRE(inbox->arrived.size() == 1);
  CHECK(inbox->arrived[0].bytes == Bytes(size));
  CHECK(inbox->arrived[0].source == (v4 ? net.a.v4 : net.a.v6));
}

TEST_CASE("fragments arrive in any order, and twice", "[netstack][fragments]") {
  Simulator net(GENERATE(1u, 2u, 3u));
  net.wire.reorder = 0.5;
  net.wire.duplicate = 0.3;
  const auto inbox = Listen(net.b.stack, 53, IpAddress::V6Any());
  net.a.interface->neighbors().SetPermanent(net.b.v4, net.b.interface->mac());
  for (int i = 0; i < 20; ++i) REQUIRE(SendUdp(net.a.stack, net.b.v4, Bytes(20000)));
  net.Run(kNsPerSecond);
  REQUIRE(inbox->arrived.size() == 20);
  for (const Arrived& each : inbox->arrived) CHECK(each.bytes == Bytes(20000));
}

PacketPtr Fragment(Script& script, uint16_t id, uint16_t offset, bool more, size_t size) {
  PacketPtr packet = Packet::FromBytes(Bytes(size));
  uint8_t* p = packet->Prepend(20);
  std::memset(p, 0, 20);
  p[0] = 0x45;
  StoreBe16(p + 2, static_cast<uint32_t>(packet->size()));
  StoreBe16(p + 4, id);
  StoreBe16(p + 6, static_cast<uint32_t>(offset / 8 | (more ? 0x2000 : 0)));
  p[8] = 64;
  p[9] = kProtocolUdp;
  std::memcpy(p + 12, script.peer().Packed().data(), 4);
  std::memcpy(p + 16, script.address().Packed().data(), 4);
  Checksum sum;
  sum.Add({p, 20});
  StoreBe16(p + 10, sum.Value());
  return packet;
}

TEST_CASE("overlapping fragments lose their datagram", "[netstack][fragments]") {
  Script script;
  auto& fails = script.stack().counters().ip4.reassembly_fails;
  script.InjectFrame(Fragment(script, 1, 0, true, 64), kEthertypeIpv4);
  script.InjectFrame(Fragment(script, 1, 56, true, 64), kEthertypeIpv4);
  CHECK(fails == 1);
  script.InjectFrame(Fragment(script, 1, 64, false, 64), kEthertypeIpv4);
  CHECK(fails == 2);
  CHECK(script.stack().counters().ip4.reassembly_ok == 0);
  CHECK(script.stack().ipv4().fragments().bytes() == 0);
}

TEST_CASE("fragments beyond 64 KiB, of no bytes and of odd sizes are refused",
          "[netstack][fragments]") {
  Script script;
  script.InjectFrame(Fragment(script, 1, 65528, false, 100), kEthertypeIpv4);
  script.InjectFrame(Fragment(script, 2, 0, true, 63), kEthertypeIpv4);
  script.InjectFrame(Fragment(script, 3, 8, false, 0), kEthertypeIpv4);
  CHECK(script.stack().counters().ip4.reassembly_fails == 3);
  CHECK(script.stack().ipv4().fragments().bytes() == 0);
}

TEST_CASE("a flood of fragments stays within its memory, and ends", "[netstack][fragments]") {
  Script script;
  for (uint32_t i = 0; i < 50000; ++i)
    script.InjectFrame(
        Fragment(script, static_cast<uint16_t>(i), static_cast<uint16_t>(i % 7 * 1480), true, 1480),
        kEthertypeIpv4);
  CHECK(script.stack().ipv4().fragments().bytes() <= FragmentTable::kBytesMax);
  script.Advance(31'000);
  CHECK(script.stack().ipv4().fragments().bytes() == 0);
}

TEST_CASE("a question for our address is answered, for others not", "[netstack][arp]") {
  Script script;
  const auto ask = [&](uint8_t last) {
    std::vector<uint8_t> arp = {0,  1, 8, 0, 6, 4, 0, 1, 2, 0, 0,  0, 0, 2,
                                10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, last};
    script.InjectFrame(Packet::FromBytes(arp), kEthertypeArp);
    return script.NextFrame();
  };
  CHECK(!ask(9));
  const auto answer = ask(1);
  REQUIRE(answer.has_value());
  const std::vector<uint8_t> expected = {0,  1, 8, 0, 6, 4, 0, 2, 2, 0, 0,  0, 0, 1,
                                         10, 0, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2};
  CHECK(*answer == expected);
}

TEST_CASE("packets wait for a neighbour, a few, and then fail", "[netstack][arp]") {
  Script script;
  const auto inbox = Listen(script.stack(), 1111, IpAddress::V4(0));
  const IpAddress nobody = IpAddress::V4(0x0a000063);
  for (int i = 0; i < 300; ++i) SendUdp(script.stack(), nobody, Bytes(10));
  REQUIRE(script.NextFrame().has_value());  // One question.
  CHECK(!script.NextFrame());
  script.Advance(4000);
  int questions = 0;
  while (script.NextFrame()) ++questions;
  CHECK(questions == 2);
  CHECK(inbox->errors.size() == NeighborCache::kWaitingMax);
  CHECK(inbox->errors[0] == EHOSTUNREACH);
}

TEST_CASE("an announcement by a stranger makes no neighbour", "[netstack][arp]") {
  Script script;
  for (uint8_t i = 3; i < 200; ++i) {
    std::vector<uint8_t> arp = {0,  1, 8, 0, 6, 4, 0, 2, 2, 0, 0,  0, 0, i,
                                10, 0, 0, i, 0, 0, 0, 0, 0, 0, 10, 0, 0, i};
    script.InjectFrame(Packet::FromBytes(arp), kEthertypeArp);
  }
  CHECK(script.host().interface->neighbors().All().size() == 1);
}

TEST_CASE("an echo comes back as it was", "[netstack][icmp]") {
  Script script;
  std::vector<uint8_t> echo = {8, 0, 0, 0, 1, 2, 3, 4, 'a', 'b', 'c'};
  Checksum sum;
  sum.Add(echo);
  StoreBe16(&echo[2], sum.Value());
  script.Inject(kProtocolIcmp, Packet::FromBytes(echo));
  const auto answer = script.NextFrame();
  REQUIRE(answer.has_value());
  REQUIRE(answer->size() == 31);
  CHECK((*answer)[20] == 0);
  CHECK(std::equal(echo.begin() + 4, echo.end(), answer->begin() + 24));
  Checksum check;
  check.Add(std::span(*answer).subspan(20));
  CHECK(check.Value() == 0);
  echo[9] ^= 1;  // Damaged.
  script.Inject(kProtocolIcmp, Packet::FromBytes(echo));
  CHECK(!script.NextFrame());
}

TEST_CASE("a port of nobody is reported, within a rate", "[netstack][icmp]") {
  Script script;
  int reports = 0;
  for (int i = 0; i < 100; ++i) {
    std::vector<uint8_t> datagram = {0, 9, 0, 99, 0, 8, 0, 0};
    script.Inject(kProtocolUdp, Packet::FromBytes(datagram));
    while (const auto report = script.NextFrame()) {
      CHECK((*report)[20] == 3);
      CHECK((*report)[21] == 3);
      ++reports;
    }
  }
  CHECK(reports == Icmp::kPeerBurst);
}

TEST_CASE("errors reach the socket whose packet they are about", "[netstack][icmp]") {
  Simulator net;
  const auto inbox = Listen(net.a.stack, 1111, IpAddress::V6Any());
  REQUIRE(SendUdp(net.a.stack, net.b.v4, Bytes(10)));
  REQUIRE(SendUdp(net.a.stack, net.b.v6, Bytes(10)));
  net.Run(kNsPerSecond);
  CHECK(inbox->errors == std::vector<int>{ECONNREFUSED, ECONNREFUSED});
}

TEST_CASE("headers that are wrong are dropped", "[netstack][ipv4]") {
  Script script;
  const auto inbox = Listen(script.stack(), 53, IpAddress::V4(0));
  const auto send = [&](const std::function<void(uint8_t*)>& damage, bool fix = true) {
    std::vector<uint8_t> packet = {0x45, 0,  0, 30, 0, 0, 0, 0, 64, 17, 0,  0, 10, 0,   0,
                                   2,    10, 0, 0,  1, 0, 9, 0, 53, 0,  10, 0, 0,  'h', 'i'};
    damage(packet.data());
    if (fix) {
      Checksum sum;
      sum.Add({packet.data(), 20});
      StoreBe16(&packet[10], sum.Value());
    }
    script.InjectFrame(Packet::FromBytes(packet), kEthertypeIpv4);
  };
  send([](uint8_t*) {});
  CHECK(inbox->arrived.size() == 1);
  send([](uint8_t* p) { p[0] = 0x44; });
  send([](uint8_t* p) { p[0] = 0x4f; });
  send([](uint8_t* p) { StoreBe16(p + 2, 31); });
  send([](uint8_t* p) { StoreBe16(p + 2, 19); });
  send([](uint8_t* p) { p[10] = 1; }, false);
  send([](uint8_t* p) { p[12] = 127; });
  send([](uint8_t* p) { p[12] = 224; });
  send([](uint8_t* p) { p[16] = 127; });
  send([](uint8_t* p) { p[19] = 77; });
  send([](uint8_t* p) { StoreBe16(p + 24, 11); });
  send([](uint8_t* p) { StoreBe16(p + 24, 7); });
  CHECK(inbox->arrived.size() == 1);
}

TEST_CASE("a duplicate address is noticed", "[netstack][ndp]") {
  Simulator net;
  const IpAddress address = net.b.v6;
  REQUIRE(net.a.stack
              .AddAddress(net.a.interface->index(),
                          {.prefix = {address, 64}, .state = AddressState::kTentative})
              .ok());
  const IpAddress mine = MustParseAddress("fd00::77");
  REQUIRE(net.a.stack
              .AddAddress(net.a.interface->index(),
                          {.prefix = {mine, 64}, .state = AddressState::kTentative})
              .ok());
  CHECK(!net.a.stack.IsLocal(mine));
  net.Run(3 * kNsPerSecond);
  CHECK(net.a.stack.FindAddress(address, net.a.interface->index()) == AddressState::kDuplicate);
  CHECK(net.a.stack.FindAddress(mine, net.a.interface->index()) == AddressState::kPreferred);
}

TEST_CASE("a router's advertisement gives an address, a route and an MTU", "[netstack][ndp]") {
  Script script;
  const int index = script.host().interface->index();
  script.stack().ndp().StartAutoconfiguration(index);
  const auto advertise = [&](uint16_t lifetime, uint32_t valid) {
    std::vector<uint8_t> message(16 + 32 + 8, 0);
    message[0] = 134;
    StoreBe16(&message[6], lifetime);
    uint8_t* prefix = &message[16];
    prefix[0] = 3;
    prefix[1] = 4;
    prefix[2] = 64;
    prefix[3] = 0xc0;
    StoreBe32(prefix + 4, valid);
    StoreBe32(prefix + 8, valid / 2);
    prefix[16] = 0xfd;
    prefix[17] = 0x55;
    message[48] = 5;
    message[49] = 1;
    StoreBe32(&message[52], 1400);
    const IpAddress router = MustParseAddress("fe80::1");
    const IpAddress all = MustParseAddress("ff02::1");
    Checksum sum;
    AddPseudoHeader(sum, router, all, kProtocolIcmpv6, message.size());
    sum.Add(message);
    StoreBe16(&message[2], sum.Value());
    PacketPtr packet = Packet::FromBytes(message);
    uint8_t* p = packet->Prepend(40);
    std::memset(p, 0, 40);
    p[0] = 0x60;
    StoreBe16(p + 4, static_cast<uint32_t>(message.size()));
    p[6] = kProtocolIcmpv6;
    p[7] = 255;
    std::memcpy(p + 8, router.bytes.data(), 16);
    std::memcpy(p + 24, all.bytes.data(), 16);
    script.InjectFrame(std::move(packet), kEthertypeIpv6);
  };
  advertise(1800, 20000);
  script.Advance(2000);
  const IpAddress address = MustParseAddress("fd55::ff:fe00:1");
  CHECK(script.stack().FindAddress(address, index) == AddressState::kPreferred);
  CHECK(script.host().interface->mtu() == 1400);
  const auto path = script.stack().FindPath(MustParseAddress("2001:db8::1"), IpAddress::V6Any());
  REQUIRE(path.ok());
  CHECK(path.value().next_hop == MustParseAddress("fe80::1"));
  const auto near = script.stack().FindPath(MustParseAddress("fd55::9"), IpAddress::V6Any());
  REQUIRE(near.ok());
  CHECK(near.value().source == address);
  CHECK(near.value().next_hop == MustParseAddress("fd55::9"));
  advertise(1800, 60);  // Too short to be believed: two hours stay.
  script.Advance(100'000);
  CHECK(script.stack().FindAddress(address, index).has_value());
  advertise(0, 60);
  CHECK(!script.stack().FindPath(MustParseAddress("2001:db8::1"), IpAddress::V6Any()).ok());
  script.Advance(7'300'000);
  CHECK(!script.stack().FindAddress(address, index).has_value());
}

TEST_CASE("the longest prefix wins, then the lowest metric", "[netstack][route]") {
  Script script;
  Stack& stack = script.stack();
  const int index = script.host().interface->index();
  const auto add = [&](const char* net, uint8_t bits, const char* gateway, uint32_t metric) {
    return stack
        .AddRoute({.destination = {MustParseAddress(net), bits},
                   .gateway = MustParseAddress(gateway),
                   .interface_index = index,
                   .metric = metric,
                   .preferred_source = std::nullopt})
        .ok();
  };
  REQUIRE(add("0.0.0.0", 0, "10.0.0.3", 100));
  REQUIRE(add("0.0.0.0", 0, "10.0.0.4", 50));
  REQUIRE(add("192.168.0.0", 16, "10.0.0.5", 0));
  CHECK(!add("192.168.0.0", 16, "10.0.0.5", 0));
  const auto hop = [&](const char* to) {
    return stack.FindPath(MustParseAddress(to), IpAddress::V4(0)).value().next_hop.ToString();
  };
  CHECK(hop("8.8.8.8") == "10.0.0.4");
  CHECK(hop("192.168.7.7") == "10.0.0.5");
  CHECK(hop("10.0.0.9") == "10.0.0.9");
  CHECK(stack.FindPath(script.address(), IpAddress::V4(0)).value().interface->is_loopback());
  CHECK(stack.FindPath(MustParseAddress("8.8.8.8"), MustParseAddress("1.2.3.4")).error() ==
        EADDRNOTAVAIL);
  CHECK(stack.FindPath(MustParseAddress("2001::1"), IpAddress::V6Any()).error() == ENETUNREACH);
}

}  // namespace
