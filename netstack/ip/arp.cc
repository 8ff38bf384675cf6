#include "netstack/ip/arp.h"

#include <cstring>
#include <utility>

#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/stack/interface.h"
#include "netstack/stack/stack.h"

namespace netstack {
namespace {

constexpr uint16_t kRequest = 1;
constexpr uint16_t kReply = 2;

}  // namespace

void Arp::Receive(Interface& interface, PacketPtr packet) {
  const uint8_t* p = packet->Pull(kBytes);
  // Hardware Ethernet, protocol IPv4, and their address sizes.
  static constexpr uint8_t kKind[6] = {0, 1, 0x08, 0x00, 6, 4};
  if (p == nullptr || std::memcmp(p, kKind, sizeof(kKind)) != 0) {
    Count(interface.counters().received_errors);
    return;
  }
  const uint16_t operation = LoadBe16(p + 6);
  MacAddress sender_mac;
  std::memcpy(sender_mac.bytes.data(), p + 8, 6);
  const IpAddress sender = IpAddress::FromV4(p + 14);
  const IpAddress target = IpAddress::FromV4(p + 24);
  if (sender_mac.is_group() || sender_mac.is_zero() || sender.is_multicast() ||
      sender.is_limited_broadcast() || stack_.IsLocalOn(sender, interface.index()))
    return;
  const bool for_us = stack_.IsLocalOn(target, interface.index());
  if (operation == kRequest) {
    if (!for_us) {
      if (!sender.is_any()) interface.neighbors().OnHeard(sender, sender_mac, false);
      return;
    }
    // 0.0.0.0 probes for duplicates (RFC 5227): gets the answer, and no entry.
    if (!sender.is_any()) interface.neighbors().OnHeard(sender, sender_mac, true);
    Send(interface, kReply, sender_mac, target, sender_mac, sender);
  } else if (operation == kReply && !sender.is_any()) {
    // A gratuitous one goes to nobody: it changes an entry, and proves nothing.
    interface.neighbors().OnAdvertised(sender, sender_mac, for_us, true, std::nullopt);
  }
}

void Arp::Ask(Interface& interface, const IpAddress& address, const std::optional<MacAddress>& to) {
  const auto path = stack_.FindPath(address, IpAddress::V4(0), interface.index());
  if (!path.ok()) return;
  Send(interface, kRequest, to.value_or(MacAddress::Broadcast()), path.value().source, {}, address);
}

void Arp::Announce(Interface& interface, const IpAddress& address) {
  Send(interface, kRequest, MacAddress::Broadcast(), address, {}, address);
}

void Arp::Send(Interface& interface, uint16_t operation, const MacAddress& frame_to,
               const IpAddress& source, const MacAddress& target_mac, const IpAddress& target) {
  PacketPtr packet = Packet::New();
  uint8_t* p = packet->Prepend(kBytes);
  StoreBe16(p, 1);
  StoreBe16(p + 2, kEthertypeIpv4);
  p[4] = 6;
  p[5] = 4;
  StoreBe16(p + 6, operation);
  std::memcpy(p + 8, interface.mac().bytes.data(), 6);
  std::memcpy(p + 14, source.Packed().data(), 4);
  std::memcpy(p + 18, target_mac.bytes.data(), 6);
  std::memcpy(p + 24, target.Packed().data(), 4);
  interface.SendFrame(std::move(packet), frame_to, kEthertypeArp);
}

}  // namespace netstack
