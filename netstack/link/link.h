#pragma once

// What an interface sends through. A link knows nothing of addresses and protocols; received
// packets go to Interface::Receive by whoever owns the link's other end.

#include <cstdint>

#include "netstack/stack/address.h"
#include "netstack/stack/packet.h"

namespace netstack {

class Link {
 public:
  enum class Kind {
    kEthernet,
    kLoopback,  // IP packets, straight back.
    kIp,        // IP packets, no neighbours.
  };
  struct Properties {
    Kind kind = Kind::kEthernet;
    uint32_t mtu = 1500;
    MacAddress address = {};
    bool completes_checksums = false;  // Takes packets with ChecksumState::kPartial.
    bool splits_segments = false;      // Takes TCP super-packets (segment_bytes) to 64 KiB.
  };
  explicit Link(const Properties& properties) : properties_(properties) {}
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  virtual ~Link() = default;

  const Properties& properties() const { return properties_; }
  // Takes a whole frame or drops it; never waits. Called by several threads, with locks of the
  // stack held: must not call back into it.
  virtual void Send(PacketPtr packet) = 0;

 private:
  const Properties properties_;
};

}  // namespace netstack
