#pragma once

// IPv4 (RFC 791, RFC 1122 3, RFC 6864): checks what comes in, reassembles, fragments what is too
// large. Options are checked and carried; source routes are dropped.

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "netstack/ip/fragments.h"
#include "netstack/stack/transport.h"
#include "platform/base/result.h"

namespace netstack {

class Stack;

class Ipv4 {
 public:
  static constexpr size_t kHeaderBytes = 20;
  static constexpr size_t kHeaderBytesMax = 60;
  explicit Ipv4(Stack& stack);

  void Receive(Interface& interface, PacketPtr packet);
  base::Result<void> Send(const Path& path, const IpSend& send, PacketPtr packet);
  FragmentTable& fragments() { return *fragments_; }

 private:
  void Deliver(Interface& interface, PacketPtr packet);
  base::Result<void> SendFragments(const Path& path, const IpSend& send, PacketPtr packet,
                                   uint16_t id);
  uint16_t NextId(const IpAddress& destination);

  Stack& stack_;
  const std::shared_ptr<FragmentTable> fragments_;
  // RFC 7739 in spirit: counters that a stranger cannot tie together.
  std::array<std::atomic<uint16_t>, 256> ids_;
};

}  // namespace netstack
