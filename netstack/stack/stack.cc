#include "netstack/stack/stack.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/ip/arp.h"
#include "netstack/ip/icmp.h"
#include "netstack/ip/ipv4.h"
#include "netstack/ip/ipv6.h"
#include "netstack/ip/ndp.h"
#include "netstack/link/loopback.h"
#include "netstack/stack/raw.h"
#include "netstack/tcp/table.h"
#include "netstack/udp/table.h"
#include "platform/base/check.h"

namespace netstack {

using base::Errno;
using base::Result;

Stack::Stack(const Clock& clock, Random& random, std::function<void()> on_earlier_timer)
    : clock_(clock),
      random_(random),
      timers_(clock, std::move(on_earlier_timer)),
      arp_(std::make_unique<Arp>(*this)),
      icmp_(std::make_unique<Icmp>(*this)),
      ipv4_(std::make_unique<Ipv4>(*this)),
      ipv6_(std::make_unique<Ipv6>(*this)),
      ndp_(std::make_shared<Ndp>(*this)),
      raw_(std::make_unique<RawTable>()),
      udp_(std::make_unique<udp::Table>(*this)),
      tcp_(std::make_unique<tcp::Table>(*this)) {
  auto link = std::make_unique<LoopbackLink>();
  loopback_link_ = link.get();
  loopback_ = &AddInterface("lo", std::move(link), kLoopbackIndex);
  CHECK(AddAddress(kLoopbackIndex, {.prefix = {IpAddress::V4(0x7f000001), 8}}).ok());
  CHECK(AddAddress(kLoopbackIndex, {.prefix = {MustParseAddress("::1"), 128}}).ok());
}

Stack::~Stack() = default;

void Stack::Drain() { loopback_link_->Drain(*loopback_); }

// --- Interfaces.

const Stack::Slot* Stack::FindSlotLocked(int index) const {
  for (const auto& slot : slots_)
    if (slot->interface->index() == index) return slot.get();
  return nullptr;
}

Stack::Slot* Stack::FindSlotLocked(int index) {
  for (const auto& slot : slots_)
    if (slot->interface->index() == index) return slot.get();
  return nullptr;
}

Interface& Stack::AddInterface(std::string name, std::unique_ptr<Link> link, int index) {
  const absl::MutexLock lock(&mu_);
  if (index == 0) {
    for (const auto& slot : slots_) index = std::max(index, slot->interface->index());
    ++index;
  }
  CHECK(FindSlotLocked(index) == nullptr);
  auto slot = std::make_unique<Slot>();
  slot->interface = std::make_unique<Interface>(*this, index, std::move(name), std::move(link));
  Interface& interface = *slot->interface;
  slots_.push_back(std::move(slot));
  return interface;
}

Interface* Stack::FindInterface(int index) const {
  const absl::ReaderMutexLock lock(&mu_);
  const Slot* slot = FindSlotLocked(index);
  return slot == nullptr ? nullptr : slot->interface.get();
}

Interface* Stack::FindInterface(std::string_view name) const {
  const absl::ReaderMutexLock lock(&mu_);
  for (const auto& slot : slots_)
    if (slot->interface->name() == name) return slot->interface.get();
  return nullptr;
}

std::vector<Interface*> Stack::Interfaces() const {
  const absl::ReaderMutexLock lock(&mu_);
  std::vector<Interface*> all;
  for (const auto& slot : slots_) all.push_back(slot->interface.get());
  return all;
}

// --- Addresses.

Result<void> Stack::AddAddress(int interface_index, const InterfaceAddress& address) {
  const IpAddress& ip = address.prefix.address;
  bool detect = false;
  {
    const absl::MutexLock lock(&mu_);
    Slot* slot = FindSlotLocked(interface_index);
    if (slot == nullptr) return Errno(ENODEV);
    for (const InterfaceAddress& other : slot->addresses)
      if (other.prefix.address == ip) return Errno(EEXIST);
    if (slot->addresses.size() >= kAddressesMax) return Errno(ENOBUFS);
    slot->addresses.push_back(address);
    detect = address.state == AddressState::kTentative && !ip.is_v4();
  }
  OnConfigurationChange();
  if (detect) ndp_->StartDetection(interface_index, ip);
  return {};
}

Result<void> Stack::RemoveAddress(int interface_index, const IpAddress& address) {
  const absl::MutexLock lock(&mu_);
  Slot* slot = FindSlotLocked(interface_index);
  if (slot == nullptr) return Errno(ENODEV);
  const size_t removed = std::erase_if(slot->addresses, [&](const InterfaceAddress& other) {
    return other.prefix.address == address;
  });
  if (removed == 0) return Errno(EADDRNOTAVAIL);
  OnConfigurationChange();
  return {};
}

std::vector<InterfaceAddress> Stack::Addresses(int interface_index) const {
  const absl::ReaderMutexLock lock(&mu_);
  const Slot* slot = FindSlotLocked(interface_index);
  return slot == nullptr ? std::vector<InterfaceAddress>() : slot->addresses;
}

bool Stack::UpdateAddress(int interface_index, const IpAddress& address,
                          const std::function<void(InterfaceAddress&)>& change) {
  const absl::MutexLock lock(&mu_);
  Slot* slot = FindSlotLocked(interface_index);
  if (slot == nullptr) return false;
  for (InterfaceAddress& other : slot->addresses) {
    if (other.prefix.address != address) continue;
    change(other);
    OnConfigurationChange();
    return true;
  }
  return false;
}

bool Stack::IsLocalLocked(const IpAddress& address, int interface_index) const {
  if (address.is_v4() && address.is_loopback())
    return interface_index == 0 || interface_index == kLoopbackIndex;
  for (const auto& slot : slots_) {
    if (interface_index != 0 && slot->interface->index() != interface_index) continue;
    for (const InterfaceAddress& own : slot->addresses) {
      const bool usable =
          own.state != AddressState::kTentative && own.state != AddressState::kDuplicate;
      if (usable && own.prefix.address == address) return true;
    }
  }
  return false;
}

bool Stack::IsLocal(const IpAddress& address) const {
  const absl::ReaderMutexLock lock(&mu_);
  return IsLocalLocked(address, 0);
}

bool Stack::IsLocalOn(const IpAddress& address, int interface_index) const {
  const absl::ReaderMutexLock lock(&mu_);
  return IsLocalLocked(address, interface_index);
}

std::optional<AddressState> Stack::FindAddress(const IpAddress& address,
                                               int interface_index) const {
  const absl::ReaderMutexLock lock(&mu_);
  const Slot* slot = FindSlotLocked(interface_index);
  if (slot == nullptr) return std::nullopt;
  for (const InterfaceAddress& own : slot->addresses)
    if (own.prefix.address == address) return own.state;
  return std::nullopt;
}

bool Stack::IsBroadcast(const IpAddress& address, int interface_index) const {
  if (!address.is_v4()) return false;
  if (address.is_limited_broadcast()) return true;
  const absl::ReaderMutexLock lock(&mu_);
  const Slot* slot = FindSlotLocked(interface_index);
  if (slot == nullptr || slot->interface->is_loopback()) return false;
  for (const InterfaceAddress& own : slot->addresses) {
    if (!own.prefix.address.is_v4() || own.prefix.bits > 30) continue;
    const uint32_t hosts = 0xffffffffu >> own.prefix.bits;
    if ((address.v4() & hosts) == hosts && own.prefix.Contains(address)) return true;
  }
  return false;
}

// --- Routes.

Result<void> Stack::AddRoute(const Route& route) {
  const absl::MutexLock lock(&mu_);
  if (route.kind == Route::Kind::kUnicast && FindSlotLocked(route.interface_index) == nullptr)
    return Errno(ENODEV);
  if (routes_.size() >= kRoutesMax) return Errno(ENOBUFS);
  const auto before = [](const Route& a, const Route& b) {
    if (a.destination.bits != b.destination.bits) return a.destination.bits > b.destination.bits;
    return a.metric < b.metric;
  };
  for (const Route& other : routes_) {
    if (other.destination == route.destination && other.metric == route.metric &&
        other.gateway == route.gateway && other.interface_index == route.interface_index)
      return Errno(EEXIST);
  }
  routes_.insert(std::upper_bound(routes_.begin(), routes_.end(), route, before), route);
  OnConfigurationChange();
  return {};
}

Result<void> Stack::RemoveRoute(const Prefix& destination, const std::optional<IpAddress>& gateway,
                                int interface_index) {
  const absl::MutexLock lock(&mu_);
  const auto found = std::find_if(routes_.begin(), routes_.end(), [&](const Route& route) {
    return route.destination == destination && route.gateway == gateway &&
           (interface_index == 0 || route.interface_index == interface_index);
  });
  if (found == routes_.end()) return Errno(ESRCH);
  routes_.erase(found);
  OnConfigurationChange();
  return {};
}

std::vector<Route> Stack::Routes() const {
  const absl::ReaderMutexLock lock(&mu_);
  return routes_;
}

const Route* Stack::FindRouteLocked(const IpAddress& destination, int interface_index) const {
  for (const Route& route : routes_) {
    if (interface_index != 0 && route.interface_index != interface_index) continue;
    if (route.destination.Contains(destination)) return &route;
  }
  return nullptr;
}

// RFC 6724 5 for IPv6; the same order gives Linux's choice for IPv4 (the address whose subnet has
// the next hop, else the first).
std::optional<IpAddress> Stack::SelectSourceLocked(const IpAddress& destination,
                                                   int interface_index) const {
  const Slot* slot = FindSlotLocked(interface_index);
  if (slot == nullptr) return std::nullopt;
  const auto scope = [](const IpAddress& a) {
    if (a.is_multicast() && !a.is_v4()) return static_cast<int>(a.bytes[1] & 0xf);
    return a.is_loopback() || a.is_link_local() ? 2 : 14;
  };
  const int wanted = scope(destination);
  const InterfaceAddress* best = nullptr;
  const auto better = [&](const InterfaceAddress& a, const InterfaceAddress& b) {
    const IpAddress& left = a.prefix.address;
    const IpAddress& right = b.prefix.address;
    if ((left == destination) != (right == destination)) return left == destination;  // Rule 1.
    const int ls = scope(left);
    const int rs = scope(right);
    if (ls != rs) return ls < rs ? ls >= wanted : rs < wanted;  // Rule 2.
    const bool ld = a.state == AddressState::kDeprecated;
    if (ld != (b.state == AddressState::kDeprecated)) return !ld;  // Rule 3.
    return std::min<unsigned>(CommonPrefixBits(left, destination),
                              a.prefix.bits + (left.is_v4() ? 96u : 0u)) >
           std::min<unsigned>(CommonPrefixBits(right, destination),
                              b.prefix.bits + (right.is_v4() ? 96u : 0u));  // Rule 8.
  };
  for (const InterfaceAddress& own : slot->addresses) {
    if (own.prefix.address.is_v4() != destination.is_v4()) continue;
    if (own.state == AddressState::kTentative || own.state == AddressState::kDuplicate) continue;
    if (best == nullptr || better(own, *best)) best = &own;
  }
  if (best == nullptr) return std::nullopt;
  return best->prefix.address;
}

uint32_t Stack::PathMtuLocked(const IpAddress& destination, uint32_t mtu) const {
  const auto found = path_mtus_.find(destination);
  if (found == path_mtus_.end() || found->second.expires_ns < clock_.NowNs()) return mtu;
  return std::min(mtu, found->second.mtu);
}

Result<Path> Stack::FindPath(const IpAddress& destination, const IpAddress& source,
                             int interface_index) const {
  Path path;
  path.generation = generation_.load(std::memory_order_acquire);
  path.source = source;
  const bool v4 = destination.is_v4();
  const absl::ReaderMutexLock lock(&mu_);
  if (!source.is_any()) {
    if (source.is_v4() != v4) return Errno(EINVAL);
    if (!source.is_multicast() && !IsLocalLocked(source, 0)) return Errno(EADDRNOTAVAIL);
  }
  if (IsLocalLocked(destination, 0)) {
    path.interface = loopback_;
    path.next_hop = destination;
    path.mtu = loopback_->mtu();
    if (source.is_any()) path.source = destination;
    return path;
  }
  std::optional<IpAddress> preferred;
  const bool direct = destination.is_multicast() || destination.is_limited_broadcast() ||
                      (!v4 && destination.is_link_local());
  const Route* route = FindRouteLocked(destination, interface_index);
  if (route == nullptr && direct) {
    // Groups and the link's own scope need no route, only an interface.
    for (const auto& slot : slots_) {
      Interface* interface = slot->interface.get();
      if (interface->is_loopback()) continue;
      if (interface_index != 0 && interface->index() != interface_index) continue;
      path.interface = interface;
      break;
    }
    if (path.interface == nullptr) return Errno(ENETUNREACH);
    path.next_hop = destination;
    path.mtu = path.interface->mtu();
  } else {
    if (route == nullptr) return Errno(ENETUNREACH);
    switch (route->kind) {
      case Route::Kind::kBlackhole:
        return Errno(EINVAL);
      case Route::Kind::kUnreachable:
        return Errno(EHOSTUNREACH);
      case Route::Kind::kProhibit:
        return Errno(EACCES);
      case Route::Kind::kUnicast:
        break;
    }
    const Slot* slot = FindSlotLocked(route->interface_index);
    if (slot == nullptr) return Errno(ENETUNREACH);
    path.interface = slot->interface.get();
    path.next_hop = route->gateway.value_or(destination);
    if (direct) path.next_hop = destination;
    path.mtu =
        route->mtu != 0 ? std::min(route->mtu, path.interface->mtu()) : path.interface->mtu();
    preferred = route->preferred_source;
  }
  path.mtu = PathMtuLocked(destination, path.mtu);
  if (!source.is_any()) return path;
  if (!preferred) {
    preferred = SelectSourceLocked(v4 ? path.next_hop : destination, path.interface->index());
    // A weak host may use another interface's (RFC 1122 3.3.4.2).
    for (size_t i = 0; !preferred && i < slots_.size(); ++i)
      if (!slots_[i]->interface->is_loopback())
        preferred = SelectSourceLocked(destination, slots_[i]->interface->index());
  }
  if (!preferred && !direct) return Errno(EADDRNOTAVAIL);
  path.source = preferred.value_or(IpAddress::Any(v4));
  return path;
}

void Stack::UpdatePathMtu(const IpAddress& destination, uint32_t mtu) {
  // Linux's min_pmtu: what is lower is more likely an attack than a link.
  mtu = std::max(mtu, destination.is_v4() ? 552u : Ipv6::kMtuMin);
  const absl::MutexLock lock(&mu_);
  if (path_mtus_.size() >= kPathMtusMax && !path_mtus_.contains(destination)) path_mtus_.clear();
  PathMtu& entry = path_mtus_[destination];
  const int64_t now = clock_.NowNs();
  entry.mtu = entry.expires_ns > now ? std::min(entry.mtu, mtu) : mtu;
  entry.expires_ns = now + kPathMtuLifeNs;
  OnConfigurationChange();
}

void Stack::ExpireConfiguration() {
  const int64_t now = clock_.NowNs();
  const absl::MutexLock lock(&mu_);
  bool changed =
      std::erase_if(routes_, [&](const Route& r) { return r.valid_until_ns <= now; }) != 0;
  for (const auto& slot : slots_) {
    changed |= std::erase_if(slot->addresses, [&](const InterfaceAddress& a) {
                 return a.valid_until_ns <= now;
               }) != 0;
    for (InterfaceAddress& address : slot->addresses) {
      if (address.state == AddressState::kPreferred && address.preferred_until_ns <= now) {
        address.state = AddressState::kDeprecated;
        changed = true;
      }
    }
  }
  if (changed) OnConfigurationChange();
}

// --- Packets.

Result<void> Stack::Send(const Path& path, const IpSend& send, PacketPtr packet) {
  return send.destination.is_v4() ? ipv4_->Send(path, send, std::move(packet))
                                  : ipv6_->Send(path, send, std::move(packet));
}

void Stack::DeliverUp(Received received) {
  const bool v4 = received.destination.is_v4();
  const bool raw = raw_->Deliver(received);
  switch (received.protocol) {
    case kProtocolTcp:
      tcp_->Receive(std::move(received));
      break;
    case kProtocolUdp:
      udp_->Receive(std::move(received));
      break;
    case kProtocolIcmp:
    case kProtocolIcmpv6:
      if ((received.protocol == kProtocolIcmp) == v4) icmp_->Receive(std::move(received));
      break;
    default:
      if (raw) break;
      Count(v4 ? counters_.ip4.in_unknown_protocols : counters_.ip6.in_unknown_protocols);
      icmp_->SendProtocolUnreachable(*received.packet, 6);
      break;
  }
}

void Stack::OnUndeliverable(Interface&, PacketPtr packet) {
  // Only what we sent ourselves waits for a neighbour: nothing is forwarded.
  const size_t header = packet->is_v4 ? Ipv4::kHeaderBytes : Ipv6::kHeaderBytes;
  const size_t size = std::min(packet->size(), header + 20);
  const uint8_t* p = packet->Pull(size);
  if (p == nullptr || size < header + 8) return;
  TransportError error;
  error.error = EHOSTUNREACH;
  error.local = packet->is_v4 ? IpAddress::FromV4(p + 12) : IpAddress::FromV6(p + 8);
  error.remote = packet->is_v4 ? IpAddress::FromV4(p + 16) : IpAddress::FromV6(p + 24);
  error.protocol = packet->is_v4 ? p[9] : p[6];
  error.reporter = error.local;
  error.quoted = {p + header, size - header};
  error.hard = true;
  ReportError(error);
}

void Stack::ReportError(const TransportError& error) {
  if (error.protocol == kProtocolTcp) {
    tcp_->OnError(error);
  } else if (error.protocol == kProtocolUdp) {
    udp_->OnError(error);
  }
}

}  // namespace netstack
