#include "netstack/ip/ipv4.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/hash/hash.h"
#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/stack/stack.h"

namespace netstack {
namespace {

using base::Errno;
using base::Result;

constexpr uint16_t kDontFragment = 0x4000;
constexpr uint16_t kMoreFragments = 0x2000;
constexpr uint16_t kOffsetMask = 0x1fff;

// RFC 791 3.1: each option but two has a length that covers at least itself. Source routes (RFC
// 7126 4.3, 4.4) are refused.
bool OptionsAreGood(std::span<const uint8_t> options) {
  constexpr uint8_t kEnd = 0;
  constexpr uint8_t kNoOperation = 1;
  constexpr uint8_t kLooseRoute = 131;
  constexpr uint8_t kStrictRoute = 137;
  while (!options.empty()) {
    if (options[0] == kEnd) return true;
    if (options[0] == kNoOperation) {
      options = options.subspan(1);
      continue;
    }
    if (options[0] == kLooseRoute || options[0] == kStrictRoute) return false;
    if (options.size() < 2 || options[1] < 2 || options[1] > options.size()) return false;
    options = options.subspan(options[1]);
  }
  return true;
}

void WriteHeader(uint8_t* p, const IpSend& send, size_t total, uint16_t id, uint16_t fragment) {
  p[0] = 0x45;
  p[1] = send.traffic_class;
  StoreBe16(p + 2, static_cast<uint32_t>(total));
  StoreBe16(p + 4, id);
  StoreBe16(p + 6, fragment);
  p[8] = send.hop_limit;
  p[9] = send.protocol;
  StoreBe16(p + 10, 0);
  std::memcpy(p + 12, send.source.Packed().data(), 4);
  std::memcpy(p + 16, send.destination.Packed().data(), 4);
  Checksum sum;
  sum.Add({p, Ipv4::kHeaderBytes});
  StoreBe16(p + 10, sum.Value());
}

}  // namespace

Ipv4::Ipv4(Stack& stack) : stack_(stack), fragments_(std::make_shared<FragmentTable>(stack)) {
  for (auto& id : ids_) id = static_cast<uint16_t>(stack.random().Next32());
}

void Ipv4::Receive(Interface& interface, PacketPtr packet) {
  auto& counters = stack_.counters().ip4;
  Count(counters.in_receives);
  const uint8_t* p = packet->Pull(kHeaderBytes);
  const size_t header = p == nullptr ? 0 : (p[0] & 0xfu) * 4u;
  const size_t total = p == nullptr ? 0 : LoadBe16(p + 2);
  p = header < kHeaderBytes ? nullptr : packet->Pull(header);
  if (p == nullptr || total < header || total > packet->size()) {
    Count(counters.in_header_errors);
    return;
  }
  Checksum sum;
  sum.Add({p, header});
  if (sum.Value() != 0 || !OptionsAreGood({p + kHeaderBytes, header - kHeaderBytes})) {
    Count(counters.in_header_errors);
    return;
  }
  const IpAddress source = IpAddress::FromV4(p + 12);
  const IpAddress destination = IpAddress::FromV4(p + 16);
  // RFC 1122 3.2.1.3: never a source; loopback never on a wire.
  const bool martian =
      source.is_multicast() || source.is_limited_broadcast() ||
      (!interface.is_loopback() && (source.is_loopback() || destination.is_loopback()));
  if (martian) {
    Count(counters.in_address_errors);
    return;
  }
  packet->Truncate(total);  // Ethernet's padding.
  packet->is_v4 = true;
  if (!stack_.Allow(HookPoint::kPrerouting, &interface, nullptr, *packet)) return;
  p = packet->Pull(header);
  const bool ours = destination.is_multicast() ||
                    stack_.IsBroadcast(destination, interface.index()) ||
                    stack_.IsLocal(destination);
  if (!ours) {
    Count(counters.in_address_errors);
    return;
  }
  const uint16_t fragment = LoadBe16(p + 6);
  if ((fragment & (kMoreFragments | kOffsetMask)) != 0) {
    const FragmentTable::Key key{source, destination, LoadBe16(p + 4), p[9]};
    packet = fragments_->Add(key, {.offset = (fragment & kOffsetMask) * 8u,
                                   .more = (fragment & kMoreFragments) != 0,
                                   .header_bytes = static_cast<uint32_t>(header),
                                   .packet = std::move(packet)});
    if (packet == nullptr) return;
  }
  if (!stack_.Allow(HookPoint::kInput, &interface, nullptr, *packet)) return;
  Deliver(interface, std::move(packet));
}

void Ipv4::Deliver(Interface& interface, PacketPtr packet) {
  const uint8_t* p = packet->Pull(kHeaderBytes);
  Received received;
  received.transport_offset = (p[0] & 0xfu) * 4u;
  received.source = IpAddress::FromV4(p + 12);
  received.destination = IpAddress::FromV4(p + 16);
  received.protocol = p[9];
  received.hop_limit = p[8];
  received.traffic_class = p[1];
  received.interface = &interface;
  received.to_group = packet->link_broadcast || received.destination.is_multicast() ||
                      stack_.IsBroadcast(received.destination, interface.index());
  received.packet = std::move(packet);
  Count(stack_.counters().ip4.in_delivers);
  stack_.DeliverUp(std::move(received));
}

uint16_t Ipv4::NextId(const IpAddress& destination) {
  return ids_[absl::Hash<IpAddress>()(destination) % ids_.size()].fetch_add(
      1, std::memory_order_relaxed);
}

Result<void> Ipv4::Send(const Path& path, const IpSend& send, PacketPtr packet) {
  auto& counters = stack_.counters().ip4;
  Count(counters.out_requests);
  const size_t total = packet->size() + kHeaderBytes;
  if (total > 65535) return Errno(EMSGSIZE);
  packet->is_v4 = true;
  const uint16_t id = NextId(send.destination);
  const bool split_by_link = packet->segment_bytes != 0;
  if (total > path.mtu && !split_by_link) {
    if (send.dont_fragment) {
      Count(counters.fragments_fails);
      return Errno(EMSGSIZE);
    }
    return SendFragments(path, send, std::move(packet), id);
  }
  WriteHeader(packet->Prepend(kHeaderBytes), send, total, id,
              send.dont_fragment ? kDontFragment : 0);
  if (!stack_.Allow(HookPoint::kOutput, nullptr, path.interface, *packet) ||
      !stack_.Allow(HookPoint::kPostrouting, nullptr, path.interface, *packet))
    return Errno(EPERM);
  path.interface->SendIp(path.next_hop, std::move(packet));
  return {};
}

Result<void> Ipv4::SendFragments(const Path& path, const IpSend& send, PacketPtr packet,
                                 uint16_t id) {
  // The checksum is over the whole datagram, so it is completed before it is cut.
  packet->CompleteChecksum();
  const size_t piece_max = (path.mtu - kHeaderBytes) / 8 * 8;
  const size_t size = packet->size();
  for (size_t offset = 0; offset < size; offset += piece_max) {
    const size_t piece = std::min(piece_max, size - offset);
    PacketPtr part = packet->Clone();
    part->checksum = ChecksumState::kVerified;
    part->TrimFront(offset);
    part->Truncate(piece);
    const bool more = offset + piece < size;
    const auto field = static_cast<uint16_t>((offset / 8) | (more ? kMoreFragments : 0u));
    WriteHeader(part->Prepend(kHeaderBytes), send, piece + kHeaderBytes, id, field);
    if (!stack_.Allow(HookPoint::kOutput, nullptr, path.interface, *part) ||
        !stack_.Allow(HookPoint::kPostrouting, nullptr, path.interface, *part))
      return Errno(EPERM);
    Count(stack_.counters().ip4.fragments_created);
    path.interface->SendIp(path.next_hop, std::move(part));
  }
  Count(stack_.counters().ip4.fragments_ok);
  return {};
}

}  // namespace netstack
