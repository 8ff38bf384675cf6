#pragma once

// The stack: interfaces, addresses, routes, and the protocols over them. Knows no host and no
// sentry: the owner brings time, randomness, links and a thread that calls RunTimers when it is
// due.
//
// Threads: everything public may be called by any thread that holds no lock of the stack. The data
// path takes the lock of the connection, of one shard of the demultiplexer and of one neighbour
// cache; the configuration's lock only to look a path up, which connections keep
// (Path::generation).

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "netstack/stack/address.h"
#include "netstack/stack/clock.h"
#include "netstack/stack/counters.h"
#include "netstack/stack/interface.h"
#include "netstack/stack/timer.h"
#include "netstack/stack/transport.h"
#include "platform/base/result.h"

namespace netstack {

class Arp;
class Icmp;
class Ipv4;
class Ipv6;
class LoopbackLink;
class Ndp;
class RawTable;
namespace udp {
class Table;
}
namespace tcp {
class Table;
}

// As `ip route` shows them.
struct Route {
  enum class Kind : uint8_t { kUnicast, kBlackhole, kUnreachable, kProhibit };
  Prefix destination;
  std::optional<IpAddress> gateway;
  int interface_index = 0;
  uint32_t metric = 0;
  std::optional<IpAddress> preferred_source;
  uint32_t mtu = 0;  // 0: the interface's.
  Kind kind = Kind::kUnicast;
  uint8_t protocol = 4;  // RTPROT_STATIC
  uint8_t scope = 0;     // RT_SCOPE_UNIVERSE
  bool from_router = false;
  int64_t valid_until_ns = kNever;
};

class Stack {
 public:
  static constexpr int kLoopbackIndex = 1;
  static constexpr size_t kRoutesMax = 4096;
  static constexpr size_t kAddressesMax = 256;  // Per interface.
  static constexpr size_t kPathMtusMax = 1024;
  static constexpr int64_t kPathMtuLifeNs = 600 * kNsPerSecond;  // net.ipv4.route.mtu_expires

  // `on_earlier_timer`: see TimerWheel. Makes lo with its two addresses.
  Stack(const Clock& clock, Random& random, std::function<void()> on_earlier_timer = {});
  ~Stack();

  const Clock& clock() const { return clock_; }
  Random& random() { return random_; }
  TimerWheel& timers() { return timers_; }
  Counters& counters() { return counters_; }
  Arp& arp() { return *arp_; }
  Icmp& icmp() { return *icmp_; }
  Ipv4& ipv4() { return *ipv4_; }
  Ipv6& ipv6() { return *ipv6_; }
  Ndp& ndp() { return *ndp_; }
  RawTable& raw() { return *raw_; }
  udp::Table& udp() { return *udp_; }
  tcp::Table& tcp() { return *tcp_; }

  // --- Running it.
  void RunTimers() {
    timers_.Run();
    Drain();
  }
  int64_t NextTimerNs() const { return timers_.NextNs(); }
  // A packet from a link's other end, and what it causes on lo.
  void Receive(Interface& interface, PacketPtr frame) {
    interface.Receive(std::move(frame));
    Drain();
  }
  // Delivers what is queued on lo. Whoever sent with a lock of a connection held calls it after.
  void Drain();

  // --- Interfaces. `index` 0: the next free one.
  Interface& AddInterface(std::string name, std::unique_ptr<Link> link, int index = 0)
      ABSL_LOCKS_EXCLUDED(mu_);
  Interface* FindInterface(int index) const ABSL_LOCKS_EXCLUDED(mu_);
  Interface* FindInterface(std::string_view name) const ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<Interface*> Interfaces() const ABSL_LOCKS_EXCLUDED(mu_);

  // --- Addresses. EEXIST, ENOBUFS. A tentative address is checked for duplicates first.
  base::Result<void> AddAddress(int interface_index, const InterfaceAddress& address)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> RemoveAddress(int interface_index, const IpAddress& address)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<InterfaceAddress> Addresses(int interface_index) const ABSL_LOCKS_EXCLUDED(mu_);
  // Changes an existing address; false if there is none.
  bool UpdateAddress(int interface_index, const IpAddress& address,
                     const std::function<void(InterfaceAddress&)>& change) ABSL_LOCKS_EXCLUDED(mu_);
  // Usable as a destination: ours, and not tentative. The whole 127.0.0.0/8 is.
  bool IsLocal(const IpAddress& address) const ABSL_LOCKS_EXCLUDED(mu_);
  bool IsLocalOn(const IpAddress& address, int interface_index) const ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<AddressState> FindAddress(const IpAddress& address, int interface_index) const
      ABSL_LOCKS_EXCLUDED(mu_);
  // 255.255.255.255 or a subnet's last address on that interface.
  bool IsBroadcast(const IpAddress& address, int interface_index) const ABSL_LOCKS_EXCLUDED(mu_);

  // --- Routes. EEXIST, ENOBUFS; ESRCH, ENODEV.
  base::Result<void> AddRoute(const Route& route) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> RemoveRoute(const Prefix& destination, const std::optional<IpAddress>& gateway,
                                 int interface_index) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<Route> Routes() const ABSL_LOCKS_EXCLUDED(mu_);

  // How to reach `destination`; `source` any: RFC 6724's choice. `interface_index` 0: any.
  // ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL as ip-route(8)'s kinds say; EADDRNOTAVAIL.
  base::Result<Path> FindPath(const IpAddress& destination, const IpAddress& source,
                              int interface_index = 0) const ABSL_LOCKS_EXCLUDED(mu_);
  bool IsCurrent(const Path& path) const {
    return path.generation == generation_.load(std::memory_order_acquire);
  }
  // A router has said so, and the transport has checked that it is about a packet of ours.
  void UpdatePathMtu(const IpAddress& destination, uint32_t mtu) ABSL_LOCKS_EXCLUDED(mu_);
  void OnConfigurationChange() { generation_.fetch_add(1, std::memory_order_acq_rel); }
  // Lifetimes of addresses and routes that routers gave.
  void ExpireConfiguration() ABSL_LOCKS_EXCLUDED(mu_);

  // --- Packets. `packet` is a transport header and its payload. EMSGSIZE, EPERM (hook).
  base::Result<void> Send(const Path& path, const IpSend& send, PacketPtr packet);
  // To the transport's Receive, or an ICMP error.
  void DeliverUp(Received received);
  // The neighbour of a packet of ours does not answer.
  void OnUndeliverable(Interface& interface, PacketPtr packet);
  void ReportError(const TransportError& error);

  // The hook outlives the stack's use of it. Null: none.
  void SetHook(PacketHook* hook) { hook_.store(hook, std::memory_order_release); }
  bool Allow(HookPoint point, const Interface* in, const Interface* out, Packet& packet) {
    PacketHook* hook = hook_.load(std::memory_order_acquire);
    return hook == nullptr || hook->Allow(point, in, out, packet);
  }

 private:
  struct Slot {
    std::unique_ptr<Interface> interface;
    std::vector<InterfaceAddress> addresses;
  };
  struct PathMtu {
    uint32_t mtu = 0;
    int64_t expires_ns = 0;
  };
  const Slot* FindSlotLocked(int index) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  Slot* FindSlotLocked(int index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsLocalLocked(const IpAddress& address, int interface_index) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  const Route* FindRouteLocked(const IpAddress& destination, int interface_index) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  std::optional<IpAddress> SelectSourceLocked(const IpAddress& destination,
                                              int interface_index) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  uint32_t PathMtuLocked(const IpAddress& destination, uint32_t mtu) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const Clock& clock_;
  Random& random_;
  TimerWheel timers_;
  Counters counters_;
  std::atomic<PacketHook*> hook_{nullptr};
  std::atomic<uint32_t> generation_{1};
  LoopbackLink* loopback_link_ = nullptr;  // slots_[0]'s.
  Interface* loopback_ = nullptr;

  mutable absl::Mutex mu_;
  std::vector<std::unique_ptr<Slot>> slots_ ABSL_GUARDED_BY(mu_);
  std::vector<Route> routes_ ABSL_GUARDED_BY(mu_);  // Longest prefix first, then lowest metric.
  absl::flat_hash_map<IpAddress, PathMtu> path_mtus_ ABSL_GUARDED_BY(mu_);

  std::unique_ptr<Arp> arp_;
  std::unique_ptr<Icmp> icmp_;
  std::unique_ptr<Ipv4> ipv4_;
  std::unique_ptr<Ipv6> ipv6_;
  std::shared_ptr<Ndp> ndp_;
  std::unique_ptr<RawTable> raw_;
  std::unique_ptr<udp::Table> udp_;
  std::unique_ptr<tcp::Table> tcp_;
};

}  // namespace netstack
