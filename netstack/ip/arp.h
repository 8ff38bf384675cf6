#pragma once

// ARP over Ethernet for IPv4 (RFC 826). Answers for the interface's own addresses, learns from
// questions to us and from answers to ours; neither a stranger's announcement nor a question to
// others makes an entry.

#include <optional>

#include "netstack/stack/address.h"
#include "netstack/stack/packet.h"

namespace netstack {

class Interface;
class Stack;

class Arp {
 public:
  explicit Arp(Stack& stack) : stack_(stack) {}
  void Receive(Interface& interface, PacketPtr packet);
  void Ask(Interface& interface, const IpAddress& address, const std::optional<MacAddress>& to);
  // Tells everybody that an address is here (RFC 5227 2.3).
  void Announce(Interface& interface, const IpAddress& address);

 private:
  static constexpr size_t kBytes = 28;
  static void Send(Interface& interface, uint16_t operation, const MacAddress& frame_to,
                   const IpAddress& source, const MacAddress& target_mac, const IpAddress& target);
  Stack& stack_;
};

}  // namespace netstack
