// Frames from a hostile link into a stack with a listener, a connection and a UDP receiver: nothing
// may crash, and what is kept is bounded. The input is a list of records: a byte that says what to
// do, a length of two bytes, that many bytes.
//   0: a frame as it is       1: an IPv4 payload for us (protocol first)     2: an IPv6 one
//   3: a TCP segment of the open connection (from the flags on)              4: time goes by
//   5: a piece of an IPv4 datagram with right header and offset

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/ip/ipv4.h"
#include "netstack/ip/ndp.h"
#include "netstack/link/memory_link.h"
#include "netstack/stack/raw.h"
#include "netstack/stack/stack.h"
#include "netstack/tcp/connection.h"
#include "netstack/tcp/listener.h"
#include "netstack/tcp/table.h"
#include "netstack/udp/table.h"
#include "platform/base/check.h"

namespace {

using namespace netstack;

class FuzzClock final : public Clock {
 public:
  int64_t NowNs() const override { return now_ns; }
  int64_t now_ns = 1'000'000'000'000;
};

class CountingRandom final : public Random {
 public:
  void Fill(std::span<uint8_t> bytes) override {
    for (uint8_t& byte : bytes) byte = next_++;
  }

 private:
  uint8_t next_ = 1;
};

class Sink final : public udp::Receiver {
 public:
  void OnDatagram(udp::Datagram& datagram) override { bytes += datagram.payload.size(); }
  void OnError(const TransportError&) override {}
  uint64_t bytes = 0;
};

class Target {
 public:
  Target() : stack_(clock_, random_) {
    auto link = std::make_unique<MemoryLink>(
        Link::Properties{.address = {{2, 0, 0, 0, 0, 1}}, .splits_segments = true});
    link_ = link.get();
    interface_ = &stack_.AddInterface("eth0", std::move(link));
    const int index = interface_->index();
    (void)stack_.AddAddress(index, {.prefix = {v4_, 24}});
    (void)stack_.AddAddress(index, {.prefix = {v6_, 64}});
    (void)stack_.AddRoute({.destination = {IpAddress::V4(0), 0},
                           .gateway = peer_,
                           .interface_index = index,
                           .preferred_source = std::nullopt});
    (void)stack_.AddRoute({.destination = {MustParseAddress("fd00::"), 64},
                           .gateway = std::nullopt,
                           .interface_index = index,
                           .preferred_source = std::nullopt});
    interface_->neighbors().SetPermanent(peer_, {{2, 0, 0, 0, 0, 2}});
    stack_.ndp().StartAutoconfiguration(index);
    sink_ = std::make_shared<Sink>();
    stack_.udp().Bind(
        sink_, {.local = IpAddress::V6Any(), .remote = IpAddress::V6Any(), .local_port = 53});
    listener_ =
        tcp::Listener::Open(stack_, {.local = IpAddress::V6Any(), .port = 80}, 4, nullptr).value();
    Handshake();
  }

  void Run(std::span<const uint8_t> input) {
    while (input.size() >= 3) {
      const uint8_t kind = input[0] % 6;
      const size_t size = std::min<size_t>(LoadBe16(&input[1]), input.size() - 3);
      const auto bytes = input.subspan(3, size);
      input = input.subspan(3 + size);
      Step(kind, bytes);
      while (link_->Take() != nullptr) {
      }
      Use();
    }
    clock_.now_ns += 200 * kNsPerSecond;
    stack_.RunTimers();
    RAVELIN_CHECK(stack_.ipv4().fragments().bytes() == 0);
  }

 private:
  void Step(uint8_t kind, std::span<const uint8_t> bytes) {
    switch (kind) {
      case 0:
        stack_.Receive(*interface_, Packet::FromBytes(bytes));
        break;
      case 1:
        if (!bytes.empty()) Ip(bytes[0], bytes.subspan(1), 0);
        break;
      case 2:
        if (!bytes.empty()) Ip6(bytes[0], bytes.subspan(1));
        break;
      case 3:
        Tcp(bytes);
        break;
      case 4:
        clock_.now_ns += static_cast<int64_t>(bytes.size()) * 37 * kNsPerMs;
        stack_.RunTimers();
        break;
      case 5:
        if (bytes.size() > 3) Ip(bytes[0], bytes.subspan(3), LoadBe16(&bytes[1]));
        break;
      default:
        break;
    }
  }
  void Frame(PacketPtr packet, uint16_t ethertype) {
    uint8_t* p = packet->Prepend(kEthernetBytes);
    std::memcpy(p, interface_->mac().bytes.data(), 6);
    std::memset(p + 6, 2, 6);
    StoreBe16(p + 12, ethertype);
    packet->checksum = ChecksumState::kVerified;
    stack_.Receive(*interface_, std::move(packet));
  }
  void Ip(uint8_t protocol, std::span<const uint8_t> payload, uint16_t fragment) {
    PacketPtr packet = Packet::FromBytes(payload);
    uint8_t* p = packet->Prepend(20);
    std::memset(p, 0, 20);
    p[0] = 0x45;
    StoreBe16(p + 2, static_cast<uint32_t>(packet->size()));
    StoreBe16(p + 6, fragment);
    p[8] = 64;
    p[9] = protocol;
    std::memcpy(p + 12, peer_.Packed().data(), 4);
    std::memcpy(p + 16, v4_.Packed().data(), 4);
    Checksum sum;
    sum.Add({p, 20});
    StoreBe16(p + 10, sum.Value());
    Frame(std::move(packet), kEthertypeIpv4);
  }
  void Ip6(uint8_t next, std::span<const uint8_t> payload) {
    PacketPtr packet = Packet::FromBytes(payload);
    if (next == kProtocolIcmpv6 && payload.size() >= 4) {
      // So that what is behind the checksum is reached.
      std::vector<uint8_t> fixed(payload.begin(), payload.end());
      StoreBe16(&fixed[2], 0);
      Checksum sum;
      AddPseudoHeader(sum, peer6_, v6_, kProtocolIcmpv6, fixed.size());
      sum.Add(fixed);
      StoreBe16(&fixed[2], sum.Value());
      packet = Packet::FromBytes(fixed);
    }
    uint8_t* p = packet->Prepend(40);
    std::memset(p, 0, 40);
    p[0] = 0x60;
    StoreBe16(p + 4, static_cast<uint32_t>(payload.size()));
    p[6] = next;
    p[7] = 255;
    std::memcpy(p + 8, peer6_.bytes.data(), 16);
    std::memcpy(p + 24, v6_.bytes.data(), 16);
    Frame(std::move(packet), kEthertypeIpv6);
  }
  // Flags, sequence and acknowledgment relative to what is right, window, urgent, length of the
  // options, options, data.
  void Tcp(std::span<const uint8_t> bytes) {
    if (bytes.size() < 10 || connection_ == nullptr) return;
    const auto info = connection_->GetInfo();
    const size_t options =
        std::min<size_t>((bytes[9] & 0xf) * 4u, std::min<size_t>(bytes.size() - 10, 40)) / 4 * 4;
    PacketPtr packet = Packet::FromBytes(bytes.subspan(10 + options));
    uint8_t* p = packet->Prepend(20 + options);
    tcp::WriteHeader(
        {.source_port = 5000,
         .destination_port = 80,
         .sequence =
             info.receive_next + static_cast<uint32_t>(static_cast<int16_t>(LoadBe16(&bytes[1]))),
         .acknowledgment = info.send_unacknowledged +
                           static_cast<uint32_t>(static_cast<int16_t>(LoadBe16(&bytes[3]))),
         .flags = bytes[0],
         .window = LoadBe16(&bytes[5]),
         .urgent = LoadBe16(&bytes[7])},
        20 + options, p);
    if (options != 0) std::memcpy(p + 20, &bytes[10], options);
    std::vector<uint8_t> whole(packet->size());
    packet->CopyTo(whole);
    Ip(kProtocolTcp, whole, 0);
  }
  void Segment(uint8_t flags, uint32_t sequence, uint32_t acknowledgment) {
    uint8_t segment[20 + 12];
    tcp::Options options;
    options.mss = 1400;
    options.sack_permitted = true;
    const size_t size = (flags & tcp::kSyn) != 0 ? tcp::WriteOptions(options, segment + 20) : 0;
    tcp::WriteHeader({.source_port = 5000,
                      .destination_port = 80,
                      .sequence = sequence,
                      .acknowledgment = acknowledgment,
                      .flags = flags,
                      .window = 65535},
                     20 + size, segment);
    Ip(kProtocolTcp, {segment, 20 + size}, 0);
  }
  void Handshake() {
    while (link_->Take() != nullptr) {
    }
    Segment(tcp::kSyn, 1000, 0);
    const PacketPtr answer = link_->Take();
    RAVELIN_CHECK(answer != nullptr);
    const uint8_t* p = answer->Pull(kEthernetBytes + 40);
    Segment(tcp::kAck, 1001, LoadBe32(p + kEthernetBytes + 24) + 1);
    connection_ = listener_->Accept().value();
    (void)connection_->Send(Slice::Copy(std::vector<uint8_t>(20000, 'y')), true);
  }
  // As a guest would.
  void Use() {
    if (connection_ != nullptr) {
      Slices slices;
      const size_t count = connection_->Peek(0, 4096, slices);
      connection_->Consume(count);
      (void)connection_->TakeUrgent(false);
      if (connection_->SendRoom() > 1000)
        (void)connection_->Send(Slice::Copy(std::vector<uint8_t>(100, 'z')), true);
    }
    while (listener_->Accept().ok()) {
    }
    RAVELIN_CHECK(listener_->HalfOpen() <= 16);
  }

  FuzzClock clock_;
  CountingRandom random_;
  Stack stack_;
  MemoryLink* link_ = nullptr;
  Interface* interface_ = nullptr;
  const IpAddress v4_ = IpAddress::V4(0x0a000001), peer_ = IpAddress::V4(0x0a000002);
  const IpAddress v6_ = MustParseAddress("fd00::1"), peer6_ = MustParseAddress("fd00::2");
  std::shared_ptr<Sink> sink_;
  std::shared_ptr<tcp::Listener> listener_;
  std::shared_ptr<tcp::Connection> connection_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Target target;
  target.Run({data, size});
  return 0;
}
