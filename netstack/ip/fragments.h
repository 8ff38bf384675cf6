#pragma once

// Reassembly for both families (RFC 791 3.2, RFC 8200 4.5). Fragments are hostile input: overlaps
// are refused with the whole datagram (RFC 5722, for IPv4 as well), memory, datagrams and fragments
// per datagram are limited, the oldest datagram goes when room is needed.

#include <cstdint>
#include <list>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "netstack/stack/address.h"
#include "netstack/stack/packet.h"
#include "netstack/stack/timer.h"

namespace netstack {

class Stack;

class FragmentTable final : public TimerTarget {
 public:
  static constexpr size_t kBytesMax = 4 << 20;  // net.ipv4.ipfrag_high_thresh
  static constexpr size_t kDatagramsMax = 1024;
  static constexpr size_t kFragmentsMax = 256;  // Of one datagram.
  static constexpr int64_t kLifeNs = 30 * kNsPerSecond;
  static constexpr int64_t kLifeV6Ns = 60 * kNsPerSecond;

  struct Key {
    IpAddress source;
    IpAddress destination;
    uint32_t id = 0;
    uint8_t protocol = 0;  // IPv6: 0.
    friend bool operator==(const Key&, const Key&) = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& k) {
      return H::combine(std::move(h), k.source, k.destination, k.id, k.protocol);
    }
  };
  struct Fragment {
    uint32_t offset = 0;
    bool more = false;
    uint32_t header_bytes = 0;  // In front of the packet's payload: the IP header.
    PacketPtr packet;
  };
  explicit FragmentTable(Stack& stack) : stack_(stack) {}

  // The datagram with the first fragment's header in front, if this fragment was the last that
  // missed; else null.
  PacketPtr Add(const Key& key, Fragment fragment) ABSL_LOCKS_EXCLUDED(mu_);
  void OnTimer() override ABSL_LOCKS_EXCLUDED(mu_);
  size_t bytes() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Datagram {
    Key key;
    int64_t expires_ns = 0;
    bool refused = false;  // Overlap: swallows the rest.
    uint32_t end = 0;      // Known once the last fragment is here.
    uint32_t payload_bytes = 0;
    size_t charged = 0;
    std::vector<Fragment> fragments;  // Ascending.
  };
  using List = std::list<Datagram>;  // Oldest first.
  bool InsertLocked(Datagram& datagram, Fragment fragment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RefuseLocked(Datagram& datagram) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RemoveLocked(List::iterator position) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static PacketPtr Join(Datagram& datagram);

  Stack& stack_;
  mutable absl::Mutex mu_;
  List datagrams_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<Key, List::iterator> index_ ABSL_GUARDED_BY(mu_);
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace netstack
