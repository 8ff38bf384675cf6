#include "netstack/stack/interface.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/ip/arp.h"
#include "netstack/ip/ipv4.h"
#include "netstack/ip/ipv6.h"
#include "netstack/ip/ndp.h"
#include "netstack/stack/stack.h"

namespace netstack {

Interface::Interface(Stack& stack, int index, std::string name, std::unique_ptr<Link> link)
    : stack_(stack),
      index_(index),
      name_(std::move(name)),
      link_(std::move(link)),
      mtu_(link_->properties().mtu),
      neighbors_(std::make_shared<NeighborCache>(*this)) {}

void Interface::set_mtu(uint32_t mtu) {
  mtu_.store(std::clamp<uint32_t>(mtu, 68, link_->properties().mtu), std::memory_order_relaxed);
  stack_.OnConfigurationChange();
}

void Interface::Receive(PacketPtr frame) {
  counters_.received_packets.fetch_add(1, std::memory_order_relaxed);
  counters_.received_bytes.fetch_add(frame->size(), std::memory_order_relaxed);
  frame->interface_index = index_;
  if (link_->properties().kind != Link::Kind::kEthernet) {
    ReceiveIp(std::move(frame));
    return;
  }
  const uint8_t* header = frame->Pull(kEthernetBytes);
  if (header == nullptr) {
    counters_.received_errors.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  MacAddress to;
  std::memcpy(to.bytes.data(), header, 6);
  const uint16_t ethertype = LoadBe16(header + 12);
  if (to.is_group()) {
    frame->link_broadcast = true;
    counters_.received_multicast.fetch_add(1, std::memory_order_relaxed);
  } else if (to != mac()) {
    return;
  }
  frame->TrimFront(kEthernetBytes);
  switch (ethertype) {
    case kEthertypeIpv4:
    case kEthertypeIpv6:
      ReceiveIp(std::move(frame));
      break;
    case kEthertypeArp:
      stack_.arp().Receive(*this, std::move(frame));
      break;
    default:
      counters_.received_dropped.fetch_add(1, std::memory_order_relaxed);
      break;
  }
}

void Interface::ReceiveIp(PacketPtr packet) {
  const uint8_t* first = packet->Pull(1);
  if (first == nullptr) return;
  if (*first >> 4 == 4) {
    stack_.ipv4().Receive(*this, std::move(packet));
  } else if (*first >> 4 == 6) {
    stack_.ipv6().Receive(*this, std::move(packet));
  } else {
    counters_.received_errors.fetch_add(1, std::memory_order_relaxed);
  }
}

void Interface::SendIp(const IpAddress& next_hop, PacketPtr packet) {
  if (link_->properties().kind != Link::Kind::kEthernet) {
    SendFrame(std::move(packet), {});
  } else if (next_hop.is_multicast()) {
    SendFrame(std::move(packet), next_hop.MulticastMac());
  } else if (next_hop.is_v4() && stack_.IsBroadcast(next_hop, index_)) {
    SendFrame(std::move(packet), MacAddress::Broadcast());
  } else {
    neighbors_->Send(next_hop, std::move(packet));
  }
}

void Interface::SendFrame(PacketPtr packet, const MacAddress& to) {
  const uint16_t ethertype = packet->is_v4 ? kEthertypeIpv4 : kEthertypeIpv6;
  SendFrame(std::move(packet), to, ethertype);
}

void Interface::SendFrame(PacketPtr packet, const MacAddress& to, uint16_t ethertype) {
  if (link_->properties().kind == Link::Kind::kEthernet) {
    uint8_t* header = packet->Prepend(kEthernetBytes);
    std::memcpy(header, to.bytes.data(), 6);
    std::memcpy(header + 6, mac().bytes.data(), 6);
    StoreBe16(header + 12, ethertype);
  }
  if (packet->checksum == ChecksumState::kPartial && !link_->properties().completes_checksums)
    packet->CompleteChecksum();
  counters_.sent_packets.fetch_add(1, std::memory_order_relaxed);
  counters_.sent_bytes.fetch_add(packet->size(), std::memory_order_relaxed);
  link_->Send(std::move(packet));
}

void Interface::Solicit(const IpAddress& address, const std::optional<MacAddress>& to) {
  if (address.is_v4()) {
    stack_.arp().Ask(*this, address, to);
  } else {
    stack_.ndp().Ask(*this, address, to);
  }
}

}  // namespace netstack
