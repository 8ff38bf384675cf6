#pragma once

// What the IP layer hands up, and what it is given to send.

#include <cstdint>
#include <span>

#include "netstack/stack/address.h"
#include "netstack/stack/packet.h"

namespace netstack {

class Interface;

// A packet for us. It still starts with its IP header, for errors that quote it.
struct Received {
  PacketPtr packet;
  uint32_t transport_offset = 0;
  IpAddress source;
  IpAddress destination;
  uint8_t protocol = 0;
  uint8_t hop_limit = 0;
  uint8_t traffic_class = 0;
  bool to_group = false;  // Multicast, broadcast, or a group address of the link.
  Interface* interface = nullptr;
};

struct IpSend {
  IpAddress source;
  IpAddress destination;
  uint8_t protocol = 0;
  uint8_t hop_limit = 64;
  uint8_t traffic_class = 0;
  bool dont_fragment = false;
  uint32_t flow_label = 0;  // IPv6, 20 bits.
};

// Where packets to a destination go. A copy stays right until the stack's generation changes.
struct Path {
  Interface* interface = nullptr;
  IpAddress next_hop;
  IpAddress source;
  uint32_t mtu = 0;
  uint32_t generation = 0;
};

// An ICMP error about a packet of ours, or our own inability to send it.
struct TransportError {
  int error = 0;      // As errno.
  bool hard = false;  // RFC 1122 4.2.3.9: aborts a connection that is being set up.
  uint32_t mtu = 0;   // EMSGSIZE: the path's.
  uint8_t type = 0;   // As in the ICMP header; 0 and 0 if it is our own.
  uint8_t code = 0;
  bool from_icmp = false;
  IpAddress reporter;
  IpAddress local;  // Of the packet that failed.
  IpAddress remote;
  uint8_t protocol = 0;
  std::span<const uint8_t> quoted;  // Its transport header as far as it came, at least 8 bytes.
};

// One of the five points of netfilter. Allow is called for each packet (which starts with its IP
// header) while a hook is set; false drops it.
enum class HookPoint : uint8_t { kPrerouting, kInput, kForward, kOutput, kPostrouting };

class PacketHook {
 public:
  virtual ~PacketHook() = default;
  virtual bool Allow(HookPoint point, const Interface* in, const Interface* out,
                     Packet& packet) = 0;
};

}  // namespace netstack
