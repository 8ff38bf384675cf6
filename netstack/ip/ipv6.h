#pragma once

// IPv6 (RFC 8200): extension headers, fragments (RFC 5722, 6946), nothing that routes. At most
// kExtensionsMax extension headers; what does not follow the recommended order but can be parsed is
// taken, as hosts must (4.1).

#include <atomic>
#include <cstdint>
#include <memory>

#include "netstack/ip/fragments.h"
#include "netstack/stack/transport.h"
#include "platform/base/result.h"

namespace netstack {

class Stack;

class Ipv6 {
 public:
  static constexpr size_t kHeaderBytes = 40;
  static constexpr uint32_t kMtuMin = 1280;
  static constexpr int kExtensionsMax = 8;
  explicit Ipv6(Stack& stack);

  void Receive(Interface& interface, PacketPtr packet);
  base::Result<void> Send(const Path& path, const IpSend& send, PacketPtr packet);
  FragmentTable& fragments() { return *fragments_; }

 private:
  // What follows the fixed header.
  struct Chain {
    enum class End { kTransport, kFragment, kDrop };
    End end = End::kDrop;
    uint8_t next = 0;                // The transport, or what the fragment header says.
    uint32_t offset = 0;             // Of it; of the fragment header.
    uint32_t next_field_offset = 6;  // Where the header before it names it.
  };
  Chain Walk(Interface& interface, Packet& packet, const IpAddress& destination);
  bool OptionsAreGood(Packet& packet, uint32_t offset, uint32_t size, const IpAddress& destination);
  // The rest of the way of a packet that is whole. False fragment: it was one.
  void Deliver(Interface& interface, PacketPtr packet, const Chain& chain);
  PacketPtr Reassemble(PacketPtr packet, const Chain& chain);
  bool AcceptsGroup(const IpAddress& group, Interface& interface);
  base::Result<void> SendFragments(const Path& path, const IpSend& send, PacketPtr packet);

  Stack& stack_;
  const std::shared_ptr<FragmentTable> fragments_;
  std::atomic<uint32_t> next_id_;
};

}  // namespace netstack
