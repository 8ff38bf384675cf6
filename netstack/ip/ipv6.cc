#include "netstack/ip/ipv6.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/ip/icmp.h"
#include "netstack/stack/stack.h"

namespace netstack {
namespace {

using base::Errno;
using base::Result;

constexpr uint32_t kFragmentHeaderBytes = 8;

void WriteHeader(uint8_t* p, const IpSend& send, uint8_t next, size_t payload) {
  StoreBe32(p, 0x60000000u | (uint32_t{send.traffic_class} << 20) | (send.flow_label & 0xfffff));
  StoreBe16(p + 4, static_cast<uint32_t>(payload));
  p[6] = next;
  p[7] = send.hop_limit;
  std::memcpy(p + 8, send.source.bytes.data(), 16);
  std::memcpy(p + 24, send.destination.bytes.data(), 16);
}

}  // namespace

Ipv6::Ipv6(Stack& stack)
    : stack_(stack),
      fragments_(std::make_shared<FragmentTable>(stack)),
      next_id_(stack.random().Next32()) {}

bool Ipv6::AcceptsGroup(const IpAddress& group, Interface& interface) {
  // All-nodes of interface and link scope, and the solicited-node groups of our addresses.
  static const IpAddress kAllNodes = MustParseAddress("ff02::1");
  static const IpAddress kAllNodesHere = MustParseAddress("ff01::1");
  if (group == kAllNodes || group == kAllNodesHere || interface.is_loopback()) return true;
  const auto addresses = stack_.Addresses(interface.index());
  return std::any_of(addresses.begin(), addresses.end(), [&](const InterfaceAddress& address) {
    return !address.prefix.address.is_v4() && address.prefix.address.SolicitedNode() == group;
  });
}

void Ipv6::Receive(Interface& interface, PacketPtr packet) {
  auto& counters = stack_.counters().ip6;
  Count(counters.in_receives);
  const uint8_t* p = packet->Pull(kHeaderBytes);
  if (p == nullptr || LoadBe16(p + 4) + kHeaderBytes > packet->size()) {
    Count(counters.in_header_errors);
    return;
  }
  const IpAddress source = IpAddress::FromV6(p + 8);
  const IpAddress destination = IpAddress::FromV6(p + 24);
  // RFC 4291 2.5.3, 2.7; mapped addresses never travel (RFC 4942 2.2).
  const bool martian =
      source.is_multicast() || source.is_v4() || destination.is_v4() ||
      (!interface.is_loopback() && (source.is_loopback() || destination.is_loopback()));
  if (martian) {
    Count(counters.in_address_errors);
    return;
  }
  packet->Truncate(LoadBe16(p + 4) + kHeaderBytes);
  packet->is_v4 = false;
  if (!stack_.Allow(HookPoint::kPrerouting, &interface, nullptr, *packet)) return;
  const bool ours = destination.is_multicast()
                        ? AcceptsGroup(destination, interface)
                        : stack_.IsLocal(destination) ||
                              stack_.FindAddress(destination, interface.index()).has_value();
  if (!ours) {
    Count(counters.in_address_errors);
    return;
  }
  Chain chain = Walk(interface, *packet, destination);
  if (chain.end == Chain::End::kFragment) {
    packet = Reassemble(std::move(packet), chain);
    if (packet == nullptr) return;
    chain = Walk(interface, *packet, destination);
    if (chain.end == Chain::End::kFragment) chain.end = Chain::End::kDrop;
  }
  if (chain.end == Chain::End::kDrop) {
    Count(counters.in_header_errors);
    return;
  }
  if (!stack_.Allow(HookPoint::kInput, &interface, nullptr, *packet)) return;
  Deliver(interface, std::move(packet), chain);
}

// RFC 8200 4.2: the two high bits of an option that is not known say what to do.
bool Ipv6::OptionsAreGood(Packet& packet, uint32_t offset, uint32_t size,
                          const IpAddress& destination) {
  const uint8_t* p = packet.Pull(offset + size);
  if (p == nullptr) return false;
  uint32_t at = offset + 2;
  const uint32_t end = offset + size;
  while (at < end) {
    constexpr uint8_t kPad1 = 0;
    constexpr uint8_t kPadN = 1;
    constexpr uint8_t kRouterAlert = 5;
    if (p[at] == kPad1) {
      ++at;
      continue;
    }
    if (at + 2 > end || at + 2 + p[at + 1] > end) return false;
    const uint8_t type = p[at];
    if (type != kPadN && type != kRouterAlert && (type >> 6) != 0) {
      const bool answer = type >> 6 == 2 || (type >> 6 == 3 && !destination.is_multicast());
      if (answer) stack_.icmp().SendParameterProblem(packet, 2, at);
      return false;
    }
    at += 2u + p[at + 1];
  }
  return true;
}

Ipv6::Chain Ipv6::Walk(Interface&, Packet& packet, const IpAddress& destination) {
  Chain chain;
  const uint8_t* p = packet.Pull(kHeaderBytes);
  uint8_t next = p[6];
  uint32_t offset = kHeaderBytes;
  for (int count = 0; count <= kExtensionsMax; ++count) {
    chain.next = next;
    chain.offset = offset;
    if (next == kProtocolFragment) {
      p = packet.Pull(offset + kFragmentHeaderBytes);
      if (p != nullptr) chain.end = Chain::End::kFragment;
      return chain;
    }
    const bool options = next == kProtocolHopByHop || next == kProtocolDestinationOptions;
    if (!options && next != kProtocolRouting) {
      chain.end = Chain::End::kTransport;
      return chain;
    }
    if (next == kProtocolHopByHop && count != 0) {
      stack_.icmp().SendParameterProblem(packet, 1, chain.next_field_offset);
      return chain;
    }
    p = packet.Pull(offset + 8);
    if (p == nullptr) return chain;
    const uint32_t size = (p[offset + 1] + 1u) * 8;
    if (offset + size > packet.size()) return chain;
    if (options && !OptionsAreGood(packet, offset, size, destination)) return chain;
    p = packet.Pull(offset + 8);
    // RFC 5095 and 8200 4.4: a route with segments left is not for a host that knows no type.
    if (next == kProtocolRouting && p[offset + 3] != 0) {
      stack_.icmp().SendParameterProblem(packet, 0, offset + 2);
      return chain;
    }
    next = p[offset];
    chain.next_field_offset = offset;
    offset += size;
  }
  return chain;
}

PacketPtr Ipv6::Reassemble(PacketPtr packet, const Chain& chain) {
  const uint8_t* p = packet->Pull(chain.offset + kFragmentHeaderBytes);
  const uint8_t* header = p + chain.offset;
  const uint16_t field = LoadBe16(header + 2);
  const uint8_t following = header[0];
  const uint32_t id = LoadBe32(header + 4);
  const IpAddress source = IpAddress::FromV6(p + 8);
  const IpAddress destination = IpAddress::FromV6(p + 24);
  const bool more = (field & 1) != 0;
  const uint32_t offset = field & 0xfff8u;
  // Takes the fragment header out: each fragment becomes the unfragmentable part and its piece.
  if (chain.offset > Packet::kHeaderBytesMax - 64) return nullptr;  // Before it: options galore.
  uint8_t front[Packet::kHeaderBytesMax];
  std::memcpy(front, p, chain.offset);
  front[chain.next_field_offset] = following;
  PacketPtr part = Packet::New();
  packet->TrimFront(chain.offset + kFragmentHeaderBytes);
  part->checksum = packet->checksum;
  part->interface_index = packet->interface_index;
  part->link_broadcast = packet->link_broadcast;
  for (Slice& slice : packet->TakeSlices()) part->Append(std::move(slice));
  std::memcpy(part->Prepend(chain.offset), front, chain.offset);
  PacketPtr whole;
  if (offset == 0 && !more) {
    whole = std::move(part);  // RFC 6946: atomic, whatever else has the same id.
  } else {
    whole = fragments_->Add(
        {source, destination, id, 0},
        {.offset = offset, .more = more, .header_bytes = chain.offset, .packet = std::move(part)});
  }
  if (whole == nullptr) return nullptr;
  // The first fragment's header area is its own: it may be changed.
  if (whole->header_size() < kHeaderBytes) return nullptr;
  StoreBe16(whole->header() + 4, static_cast<uint32_t>(whole->size() - kHeaderBytes));
  return whole;
}

void Ipv6::Deliver(Interface& interface, PacketPtr packet, const Chain& chain) {
  const uint8_t* p = packet->Pull(kHeaderBytes);
  Received received;
  received.transport_offset = chain.offset;
  received.source = IpAddress::FromV6(p + 8);
  received.destination = IpAddress::FromV6(p + 24);
  received.protocol = chain.next;
  received.hop_limit = p[7];
  received.traffic_class = static_cast<uint8_t>((p[0] << 4) | (p[1] >> 4));
  received.interface = &interface;
  received.to_group = packet->link_broadcast || received.destination.is_multicast();
  received.packet = std::move(packet);
  Count(stack_.counters().ip6.in_delivers);
  if (chain.next == kProtocolNone) return;
  stack_.DeliverUp(std::move(received));
}

Result<void> Ipv6::Send(const Path& path, const IpSend& send, PacketPtr packet) {
  auto& counters = stack_.counters().ip6;
  Count(counters.out_requests);
  const size_t payload = packet->size();
  if (payload > 65535) return Errno(EMSGSIZE);
  packet->is_v4 = false;
  if (payload + kHeaderBytes > path.mtu && packet->segment_bytes == 0) {
    if (send.dont_fragment) {
      Count(counters.fragments_fails);
      return Errno(EMSGSIZE);
    }
    return SendFragments(path, send, std::move(packet));
  }
  WriteHeader(packet->Prepend(kHeaderBytes), send, send.protocol, payload);
  if (!stack_.Allow(HookPoint::kOutput, nullptr, path.interface, *packet) ||
      !stack_.Allow(HookPoint::kPostrouting, nullptr, path.interface, *packet))
    return Errno(EPERM);
  path.interface->SendIp(path.next_hop, std::move(packet));
  return {};
}

Result<void> Ipv6::SendFragments(const Path& path, const IpSend& send, PacketPtr packet) {
  packet->CompleteChecksum();
  const size_t mtu = std::max(path.mtu, kMtuMin);
  const size_t piece_max = (mtu - kHeaderBytes - kFragmentHeaderBytes) / 8 * 8;
  const size_t size = packet->size();
  const uint32_t id = next_id_.fetch_add(1 + (stack_.random().Next32() & 0xff));
  for (size_t offset = 0; offset < size; offset += piece_max) {
    const size_t piece = std::min(piece_max, size - offset);
    PacketPtr part = packet->Clone();
    part->checksum = ChecksumState::kVerified;
    part->TrimFront(offset);
    part->Truncate(piece);
    uint8_t* fragment = part->Prepend(kFragmentHeaderBytes);
    fragment[0] = send.protocol;
    fragment[1] = 0;
    StoreBe16(fragment + 2, static_cast<uint32_t>(offset | (offset + piece < size ? 1u : 0u)));
    StoreBe32(fragment + 4, id);
    WriteHeader(part->Prepend(kHeaderBytes), send, kProtocolFragment, piece + kFragmentHeaderBytes);
    if (!stack_.Allow(HookPoint::kOutput, nullptr, path.interface, *part) ||
        !stack_.Allow(HookPoint::kPostrouting, nullptr, path.interface, *part))
      return Errno(EPERM);
    Count(stack_.counters().ip6.fragments_created);
    path.interface->SendIp(path.next_hop, std::move(part));
  }
  Count(stack_.counters().ip6.fragments_ok);
  return {};
}

}  // namespace netstack
