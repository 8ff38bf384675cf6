#pragma once

// Packet scripts: one end is a stack, the other is the test, which writes segments bit by bit and
// looks at each answer. Time goes only when the test says so.

#include <optional>
#include <vector>

#include "catch2/catch.hpp"
#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/header/tcp.h"
#include "netstack/tcp/connection.h"
#include "netstack/tcp/listener.h"
#include "netstack/tcp/table.h"
#include "test/unit/netstack/simulator.h"

namespace test {

struct Sent {
  netstack::tcp::Header header;
  netstack::tcp::Options options;
  std::vector<uint8_t> payload;
  bool Is(uint8_t flags) const { return (header.flags & ~netstack::tcp::kPsh) == flags; }
};

class Script {
 public:
  static constexpr uint16_t kPort = 80;
  static constexpr uint16_t kPeerPort = 5000;
  static constexpr uint32_t kPeerStart = 1'000'000;

  Script() : host_(clock, 1, {}), peer_(netstack::IpAddress::V4(0x0a000002)) {
    host_.interface->neighbors().SetPermanent(peer_, {{2, 0, 0, 0, 0, 2}});
  }

  netstack::Stack& stack() { return host_.stack; }
  const netstack::IpAddress& address() const { return host_.v4; }
  const netstack::IpAddress& peer() const { return peer_; }
  Host& host() { return host_; }

  void Advance(int64_t ms) {
    const int64_t until = clock.now_ns + ms * netstack::kNsPerMs;
    while (stack().NextTimerNs() <= until) {
      clock.now_ns = std::max(clock.now_ns, stack().NextTimerNs());
      stack().RunTimers();
    }
    clock.now_ns = until;
    stack().RunTimers();
  }

  // A segment from the peer. Sequence numbers are as on the wire.
  void Send(uint8_t flags, uint32_t sequence, uint32_t acknowledgment, size_t bytes = 0,
            uint16_t window = 65535, netstack::tcp::Options options = {}, uint16_t urgent = 0) {
    using namespace netstack;
    const FlowKey flow{peer_, host_.v4, peer_port, kPort};
    if (timestamps && (flags & tcp::kRst) == 0) {
      options.has_timestamp = true;
      options.timestamp = timestamp;
      options.timestamp_echo = echo;
    }
    PacketPtr packet = Packet::New();
    if (bytes != 0) packet->Append(Slice::Copy(std::vector<uint8_t>(bytes, 'x')));
    tcp::Table::Finish(*packet, flow,
                       {.source_port = peer_port,
                        .destination_port = kPort,
                        .sequence = sequence,
                        .acknowledgment = acknowledgment,
                        .flags = flags,
                        .window = window,
                        .urgent = urgent},
                       options);
    packet->CompleteChecksum();
    Inject(kProtocolTcp, std::move(packet));
  }
  void Inject(uint8_t protocol, netstack::PacketPtr packet) {
    using namespace netstack;
    uint8_t* p = packet->Prepend(20);
    std::memset(p, 0, 20);
    p[0] = 0x45;
    StoreBe16(p + 2, static_cast<uint32_t>(packet->size()));
    p[8] = 64;
    p[9] = protocol;
    std::memcpy(p + 12, peer_.Packed().data(), 4);
    std::memcpy(p + 16, host_.v4.Packed().data(), 4);
    Checksum sum;
    sum.Add({p, 20});
    StoreBe16(p + 10, sum.Value());
    InjectFrame(std::move(packet), kEthertypeIpv4);
  }
  void InjectFrame(netstack::PacketPtr packet, uint16_t ethertype) {
    using namespace netstack;
    uint8_t* p = packet->Prepend(kEthernetBytes);
    std::memcpy(p, host_.interface->mac().bytes.data(), 6);
    const MacAddress from{{2, 0, 0, 0, 0, 2}};
    std::memcpy(p + 6, from.bytes.data(), 6);
    StoreBe16(p + 12, ethertype);
    std::vector<uint8_t> bytes(packet->size());
    packet->CopyTo(bytes);
    stack().Receive(*host_.interface, Packet::FromBytes(bytes));
  }

  // The next frame that the stack has sent, without Ethernet.
  std::optional<std::vector<uint8_t>> NextFrame() {
    netstack::PacketPtr packet = host_.link->Take();
    if (packet == nullptr) return std::nullopt;
    std::vector<uint8_t> bytes(packet->size());
    packet->CopyTo(bytes);
    bytes.erase(bytes.begin(), bytes.begin() + netstack::kEthernetBytes);
    return bytes;
  }
  // The next segment that the stack has sent.
  std::optional<Sent> Next() {
    const auto frame = NextFrame();
    if (!frame) return std::nullopt;
    REQUIRE((*frame)[9] == netstack::kProtocolTcp);
    Sent sent;
    const uint8_t* p = frame->data() + 20;
    const size_t header = netstack::tcp::ReadHeader(p, sent.header);
    REQUIRE(header != 0);
    sent.options = netstack::tcp::ParseOptions({p + 20, header - 20},
                                               (sent.header.flags & netstack::tcp::kSyn) != 0);
    sent.payload.assign(p + header, frame->data() + frame->size());
    if (sent.options.has_timestamp) echo = sent.options.timestamp;
    return sent;
  }
  Sent Expect() {
    auto sent = Next();
    REQUIRE(sent.has_value());
    return *sent;
  }
  void ExpectNothing() { CHECK(!Next().has_value()); }
  std::vector<Sent> All() {
    std::vector<Sent> all;
    while (auto sent = Next()) all.push_back(*sent);
    return all;
  }

  // A connection that the peer has opened. `iss` is the stack's.
  std::shared_ptr<netstack::tcp::Connection> Open(const netstack::tcp::Options& syn_options = {},
                                                  const netstack::tcp::Settings& settings = {},
                                                  uint16_t window = 65535) {
    using namespace netstack;
    listener =
        tcp::Listener::Open(
            stack(), {.local = IpAddress::V4(0), .port = kPort, .settings = settings}, 8, nullptr)
            .value();
    timestamps = syn_options.has_timestamp;
    Send(tcp::kSyn, kPeerStart, 0, 0, window, syn_options);
    const Sent answer = Expect();
    REQUIRE(answer.Is(tcp::kSyn | tcp::kAck));
    iss = answer.header.sequence;
    timestamps = answer.options.has_timestamp;
    Advance(10);  // The round-trip time.
    Send(tcp::kAck, kPeerStart + 1, iss + 1, 0, window);
    return listener->Accept().value();
  }
  static netstack::tcp::Options UsualOptions() {
    netstack::tcp::Options options;
    options.mss = 1000;
    options.sack_permitted = true;
    return options;
  }
  void Write(netstack::tcp::Connection& connection, size_t bytes, bool push = true,
             bool urgent = false) {
    REQUIRE(connection.Send(netstack::Slice::Copy(std::vector<uint8_t>(bytes, 'y')), push, urgent)
                .ok());
  }

  SimulatedClock clock;
  std::shared_ptr<netstack::tcp::Listener> listener;
  uint32_t iss = 0;
  uint16_t peer_port = kPeerPort;
  bool timestamps = false;
  uint32_t timestamp = 100, echo = 0;

 private:
  Host host_;
  const netstack::IpAddress peer_;
};

}  // namespace test
