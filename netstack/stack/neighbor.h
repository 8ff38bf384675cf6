#pragma once

// Who is behind an address on a link: one cache per interface for ARP (RFC 826) and NDP (RFC 4861
// 7.3), with NDP's states for both. Bounded: entries, packets that wait for an answer, questions
// per second by the states' timers.

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "netstack/stack/address.h"
#include "netstack/stack/packet.h"
#include "netstack/stack/timer.h"

namespace netstack {

class Interface;

// In Linux's NUD_* order of meaning; ToString in the dumps' owner.
enum class NeighborState : uint8_t {
  kIncomplete,
  kReachable,
  kStale,
  kDelay,
  kProbe,
  kFailed,
  kPermanent,
};

struct NeighborInfo {
  IpAddress address;
  MacAddress mac;
  NeighborState state = NeighborState::kIncomplete;
  bool is_router = false;
};

class NeighborCache final : public TimerTarget {
 public:
  static constexpr size_t kEntriesMax = 1024;
  static constexpr size_t kWaitingMax = 101;  // Packets per unresolved neighbour.
  static constexpr int kProbesMax = 3;       // MAX_UNICAST_SOLICIT, MAX_MULTICAST_SOLICIT
  static constexpr int64_t kRetransNs = kNsPerSecond;
  static constexpr int64_t kReachableNs = 30 * kNsPerSecond;
  static constexpr int64_t kDelayFirstProbeNs = 5 * kNsPerSecond;

  explicit NeighborCache(Interface& interface) : interface_(interface) {}

  // Sends an IP packet to `next_hop`, now or when its address is known.
  void Send(const IpAddress& next_hop, PacketPtr packet) ABSL_LOCKS_EXCLUDED(mu_);
  // An answer to a question of ours, or an advertisement (RFC 4861 7.2.5). Never makes an entry.
  void OnAdvertised(const IpAddress& address, const std::optional<MacAddress>& mac, bool solicited,
                    bool overrides, std::optional<bool> is_router) ABSL_LOCKS_EXCLUDED(mu_);
  // A question of theirs tells its sender's address (RFC 4861 7.2.3, RFC 826).
  void OnHeard(const IpAddress& address, const MacAddress& mac, bool create)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The upper layer has made progress through it (RFC 4861 7.3.1).
  void Confirm(const IpAddress& address) ABSL_LOCKS_EXCLUDED(mu_);
  void SetPermanent(const IpAddress& address, const MacAddress& mac) ABSL_LOCKS_EXCLUDED(mu_);
  bool Remove(const IpAddress& address) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<NeighborInfo> All() const ABSL_LOCKS_EXCLUDED(mu_);
  void OnTimer() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Entry {
    MacAddress mac;
    NeighborState state = NeighborState::kIncomplete;
    bool is_router = false;
    int probes = 0;
    int64_t due_ns = kNever;
    int64_t used_ns = 0;
    std::vector<PacketPtr> waiting;
  };
  // Makes room if there is none; null if every entry is in use.
  Entry* AddLocked(const IpAddress& address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SetReachableLocked(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static bool HasMac(const Entry& entry) {
    return entry.state != NeighborState::kIncomplete && entry.state != NeighborState::kFailed;
  }

  Interface& interface_;
  mutable absl::Mutex mu_;
  absl::flat_hash_map<IpAddress, Entry> entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace netstack
