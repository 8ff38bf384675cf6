#pragma once

// An interface: a link, the addresses on it, its neighbours. Lives as long as its stack.

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "netstack/link/link.h"
#include "netstack/stack/address.h"
#include "netstack/stack/neighbor.h"
#include "netstack/stack/packet.h"

namespace netstack {

class Stack;

enum class AddressState : uint8_t {
  kTentative,  // Duplicate address detection (RFC 4862 5.4) is under way.
  kPreferred,
  kDeprecated,
  kDuplicate,
};

struct InterfaceAddress {
  Prefix prefix;  // The address itself and the bits of its subnet.
  AddressState state = AddressState::kPreferred;
  int64_t preferred_until_ns = kNever;
  int64_t valid_until_ns = kNever;
  bool from_router = false;  // SLAAC.
};

struct InterfaceCounters {
  std::atomic<uint64_t> received_packets{0}, received_bytes{0}, received_dropped{0};
  std::atomic<uint64_t> received_errors{0}, received_multicast{0};
  std::atomic<uint64_t> sent_packets{0}, sent_bytes{0}, sent_dropped{0};
};

class Interface {
 public:
  Interface(Stack& stack, int index, std::string name, std::unique_ptr<Link> link);

  Stack& stack() const { return stack_; }
  int index() const { return index_; }
  const std::string& name() const { return name_; }
  Link& link() const { return *link_; }
  bool is_loopback() const { return link_->properties().kind == Link::Kind::kLoopback; }
  uint32_t mtu() const { return mtu_.load(std::memory_order_relaxed); }
  // Lower than the link's: a router's or an operator's wish. At least 68 (RFC 791).
  void set_mtu(uint32_t mtu);
  const MacAddress& mac() const { return link_->properties().address; }
  NeighborCache& neighbors() { return *neighbors_; }
  InterfaceCounters& counters() { return counters_; }

  // A frame has come from the link. Any thread; no lock of the stack is held.
  void Receive(PacketPtr frame);
  // An IP packet to a neighbour, a group or everybody on the link.
  void SendIp(const IpAddress& next_hop, PacketPtr packet);
  // An IP packet in a frame of its own.
  void SendFrame(PacketPtr packet, const MacAddress& to);
  void SendFrame(PacketPtr packet, const MacAddress& to, uint16_t ethertype);
  // Asks who has `address`; unicast if `to` is given.
  void Solicit(const IpAddress& address, const std::optional<MacAddress>& to);

 private:
  void ReceiveIp(PacketPtr packet);

  Stack& stack_;
  const int index_;
  const std::string name_;
  const std::unique_ptr<Link> link_;
  std::atomic<uint32_t> mtu_;
  const std::shared_ptr<NeighborCache> neighbors_;
  InterfaceCounters counters_;
};

}  // namespace netstack
