#include "netstack/ip/ndp.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/ip/ipv6.h"
#include "netstack/stack/stack.h"

namespace netstack {
namespace {

constexpr uint8_t kRouterSolicitation = 133;
constexpr uint8_t kRouterAdvertisement = 134;
constexpr uint8_t kNeighborSolicitation = 135;
constexpr uint8_t kNeighborAdvertisement = 136;

constexpr uint8_t kSourceLinkAddress = 1;
constexpr uint8_t kTargetLinkAddress = 2;
constexpr uint8_t kPrefixInformation = 3;
constexpr uint8_t kMtuOption = 5;

constexpr size_t kNeighborBytes = 24;  // Header, flags, target.
constexpr size_t kRouterAdvertisementBytes = 16;

int64_t Lifetime(int64_t now, uint32_t seconds) {
  return seconds == 0xffffffff ? kNever : now + int64_t{seconds} * kNsPerSecond;
}

}  // namespace

bool Ndp::ParseOptions(std::span<const uint8_t> options, uint8_t link_type, Options& out) {
  while (!options.empty()) {
    if (options.size() < 8) return false;
    const size_t size = options[1] * 8u;
    if (size == 0 || size > options.size()) return false;
    if (options[0] == link_type) {
      MacAddress mac;
      std::memcpy(mac.bytes.data(), &options[2], 6);
      if (!mac.is_group()) out.link_address = mac;
    } else if (options[0] == kPrefixInformation && size == 32) {
      if (out.prefixes.size() < kRouterAddressesMax) out.prefixes.push_back(options.first(32));
    } else if (options[0] == kMtuOption && size == 8) {
      out.mtu = LoadBe32(&options[4]);
    }
    options = options.subspan(size);
  }
  return true;
}

void Ndp::Receive(Received& received) {
  Packet& packet = *received.packet;
  if (received.hop_limit != 255) return;
  std::vector<uint8_t> bytes(std::min<size_t>(packet.size(), 2048));
  packet.CopyTo(bytes);
  const auto message = std::span<const uint8_t>(bytes).subspan(received.transport_offset);
  if (message.size() < 8 || message[1] != 0) return;
  switch (message[0]) {
    case kNeighborSolicitation:
      OnSolicitation(received, message);
      break;
    case kNeighborAdvertisement:
      OnAdvertisement(received, message);
      break;
    case kRouterAdvertisement:
      OnRouterAdvertisement(received, message);
      break;
    default:  // We are no router, and follow no redirects.
      break;
  }
}

void Ndp::OnSolicitation(const Received& received, std::span<const uint8_t> message) {
  if (message.size() < kNeighborBytes) return;
  Interface& interface = *received.interface;
  const IpAddress target = IpAddress::FromV6(&message[8]);
  Options options;
  if (target.is_multicast() ||
      !ParseOptions(message.subspan(kNeighborBytes), kSourceLinkAddress, options))
    return;
  const bool probe = received.source.is_any();
  if (probe && (options.link_address || !received.destination.is_multicast())) return;
  const auto state = stack_.FindAddress(target, interface.index());
  if (!state || *state == AddressState::kDuplicate) return;
  if (*state == AddressState::kTentative) {
    // RFC 4862 5.4.3: somebody else tries the same address at the same time.
    if (probe) {
      stack_.UpdateAddress(interface.index(), target,
                           [](InterfaceAddress& a) { a.state = AddressState::kDuplicate; });
    }
    return;
  }
  if (!probe && options.link_address)
    interface.neighbors().OnHeard(received.source, *options.link_address, true);
  static const IpAddress kAllNodes = MustParseAddress("ff02::1");
  Advertise(interface, target, probe ? kAllNodes : received.source, !probe);
}

void Ndp::OnAdvertisement(const Received& received, std::span<const uint8_t> message) {
  if (message.size() < kNeighborBytes) return;
  Interface& interface = *received.interface;
  const IpAddress target = IpAddress::FromV6(&message[8]);
  Options options;
  if (target.is_multicast() ||
      !ParseOptions(message.subspan(kNeighborBytes), kTargetLinkAddress, options))
    return;
  const uint8_t flags = message[4];
  const bool solicited = (flags & 0x40) != 0;
  if (solicited && received.destination.is_multicast()) return;
  if (stack_.FindAddress(target, interface.index()) == AddressState::kTentative) {
    // RFC 4862 5.4.4.
    stack_.UpdateAddress(interface.index(), target,
                         [](InterfaceAddress& a) { a.state = AddressState::kDuplicate; });
    return;
  }
  interface.neighbors().OnAdvertised(target, options.link_address, solicited, (flags & 0x20) != 0,
                                     (flags & 0x80) != 0);
}

void Ndp::OnRouterAdvertisement(const Received& received, std::span<const uint8_t> message) {
  Interface& interface = *received.interface;
  if (message.size() < kRouterAdvertisementBytes || !received.source.is_link_local()) return;
  {
    const absl::MutexLock lock(&mu_);
    const auto found = autoconfigurations_.find(interface.index());
    if (found == autoconfigurations_.end()) return;
    found->second.answered = true;
  }
  Options options;
  if (!ParseOptions(message.subspan(kRouterAdvertisementBytes), kSourceLinkAddress, options))
    return;
  if (options.link_address)
    interface.neighbors().OnHeard(received.source, *options.link_address, true);
  const int64_t now = stack_.clock().NowNs();
  const Prefix everything{IpAddress::V6Any(), 0};
  const uint32_t lifetime = LoadBe16(&message[6]);
  // The error of a route that is or is not there changes nothing.
  (void)stack_.RemoveRoute(everything, received.source, interface.index());
  if (lifetime != 0) {
    (void)stack_.AddRoute({.destination = everything,
                           .gateway = received.source,
                           .interface_index = interface.index(),
                           .metric = 1024,
                           .preferred_source = std::nullopt,
                           .protocol = 9,  // RTPROT_RA
                           .from_router = true,
                           .valid_until_ns = now + int64_t{lifetime} * kNsPerSecond});
  }
  if (options.mtu >= Ipv6::kMtuMin && options.mtu <= interface.link().properties().mtu)
    interface.set_mtu(options.mtu);
  for (const auto& prefix : options.prefixes) TakePrefix(interface, prefix);
  stack_.timers().Arm(*this, now + kNsPerSecond);
}

void Ndp::TakePrefix(Interface& interface, std::span<const uint8_t> option) {
  const int64_t now = stack_.clock().NowNs();
  const uint8_t bits = option[2];
  const bool on_link = (option[3] & 0x80) != 0;
  const bool autonomous = (option[3] & 0x40) != 0;
  const uint32_t valid = LoadBe32(&option[4]);
  const uint32_t preferred = LoadBe32(&option[8]);
  const IpAddress prefix = IpAddress::FromV6(&option[16]);
  if (prefix.is_link_local() || prefix.is_multicast() || prefix.is_v4() || bits > 128 ||
      preferred > valid)
    return;
  if (on_link) {
    const Prefix destination{prefix, bits};
    (void)stack_.RemoveRoute(destination, std::nullopt, interface.index());
    if (valid != 0) {
      (void)stack_.AddRoute({.destination = destination,
                             .gateway = std::nullopt,
                             .interface_index = interface.index(),
                             .metric = 256,
                             .preferred_source = std::nullopt,
                             .protocol = 9,
                             .from_router = true,
                             .valid_until_ns = Lifetime(now, valid)});
    }
  }
  if (!autonomous || bits != 64) return;
  const IpAddress address = WithInterfaceIdentifier(prefix, interface.mac());
  const bool known = stack_.UpdateAddress(interface.index(), address, [&](InterfaceAddress& a) {
    if (!a.from_router) return;
    // RFC 4862 5.5.3 (e): two hours, unless what is left is less, against forged short lifetimes.
    constexpr int64_t kTwoHoursNs = 7200 * kNsPerSecond;
    const int64_t wanted = Lifetime(now, valid);
    const bool longer = wanted > now + kTwoHoursNs || wanted > a.valid_until_ns;
    if (longer) {
      a.valid_until_ns = wanted;
    } else if (a.valid_until_ns > now + kTwoHoursNs) {
      a.valid_until_ns = now + kTwoHoursNs;
    }
    a.preferred_until_ns = Lifetime(now, preferred);
    if (preferred != 0 && a.state == AddressState::kDeprecated) a.state = AddressState::kPreferred;
  });
  if (known || valid == 0) return;
  const auto all = stack_.Addresses(interface.index());
  const auto ours =
      std::count_if(all.begin(), all.end(), [](const auto& a) { return a.from_router; });
  if (static_cast<size_t>(ours) >= kRouterAddressesMax) return;
  (void)stack_.AddAddress(interface.index(), {.prefix = {address, bits},
                                              .state = AddressState::kTentative,
                                              .preferred_until_ns = Lifetime(now, preferred),
                                              .valid_until_ns = Lifetime(now, valid),
                                              .from_router = true});
}

void Ndp::Advertise(Interface& interface, const IpAddress& target, const IpAddress& to,
                    bool solicited) {
  uint8_t message[kNeighborBytes + 8] = {};
  message[0] = kNeighborAdvertisement;
  message[4] = static_cast<uint8_t>((solicited ? 0x40 : 0) | 0x20);
  std::memcpy(message + 8, target.bytes.data(), 16);
  message[24] = kTargetLinkAddress;
  message[25] = 1;
  std::memcpy(message + 26, interface.mac().bytes.data(), 6);
  SendMessage(interface, target, to, std::nullopt, message);
}

void Ndp::Ask(Interface& interface, const IpAddress& address, const std::optional<MacAddress>& to) {
  const auto path = stack_.FindPath(address, IpAddress::V6Any(), interface.index());
  if (!path.ok() || path.value().source.is_any()) return;
  SendSolicitation(interface, path.value().source, address, to);
}

void Ndp::SendSolicitation(Interface& interface, const IpAddress& source, const IpAddress& target,
                           const std::optional<MacAddress>& to) {
  uint8_t message[kNeighborBytes + 8] = {};
  message[0] = kNeighborSolicitation;
  std::memcpy(message + 8, target.bytes.data(), 16);
  message[24] = kSourceLinkAddress;
  message[25] = 1;
  std::memcpy(message + 26, interface.mac().bytes.data(), 6);
  // A probe for duplicates names nobody.
  const size_t size = source.is_any() ? kNeighborBytes : sizeof(message);
  SendMessage(interface, source, to ? target : target.SolicitedNode(), to, {message, size});
}

void Ndp::SendRouterSolicitation(Interface& interface) {
  static const IpAddress kAllRouters = MustParseAddress("ff02::2");
  uint8_t message[16] = {};
  message[0] = kRouterSolicitation;
  message[8] = kSourceLinkAddress;
  message[9] = 1;
  std::memcpy(message + 10, interface.mac().bytes.data(), 6);
  const auto path = stack_.FindPath(kAllRouters, IpAddress::V6Any(), interface.index());
  const IpAddress source = path.ok() ? path.value().source : IpAddress::V6Any();
  SendMessage(interface, source, kAllRouters, std::nullopt,
              {message, source.is_any() ? size_t{8} : sizeof(message)});
}

void Ndp::SendMessage(Interface& interface, const IpAddress& source, const IpAddress& destination,
                      const std::optional<MacAddress>& mac, std::span<const uint8_t> message) {
  PacketPtr packet = Packet::New();
  uint8_t* p = packet->Prepend(message.size());
  std::memcpy(p, message.data(), message.size());
  Checksum sum;
  AddPseudoHeader(sum, source, destination, kProtocolIcmpv6, message.size());
  sum.Add(message);
  StoreBe16(p + 2, sum.Value());
  packet->checksum = ChecksumState::kVerified;
  uint8_t* ip = packet->Prepend(Ipv6::kHeaderBytes);
  std::memset(ip, 0, Ipv6::kHeaderBytes);
  ip[0] = 0x60;
  StoreBe16(ip + 4, static_cast<uint32_t>(message.size()));
  ip[6] = kProtocolIcmpv6;
  ip[7] = 255;
  std::memcpy(ip + 8, source.bytes.data(), 16);
  std::memcpy(ip + 24, destination.bytes.data(), 16);
  if (mac) {
    interface.SendFrame(std::move(packet), *mac);
  } else {
    interface.SendIp(destination, std::move(packet));
  }
}

void Ndp::StartDetection(int interface_index, const IpAddress& address) {
  Interface* interface = stack_.FindInterface(interface_index);
  if (interface == nullptr) return;
  const int64_t until = stack_.clock().NowNs() + kDetectionNs;
  {
    const absl::MutexLock lock(&mu_);
    detections_[{interface_index, address}] = until;
  }
  SendSolicitation(*interface, IpAddress::V6Any(), address, std::nullopt);
  stack_.timers().Arm(*this, until);
}

void Ndp::StartAutoconfiguration(int interface_index) {
  {
    const absl::MutexLock lock(&mu_);
    autoconfigurations_[interface_index].due_ns = stack_.clock().NowNs();
  }
  OnTimer();
}

void Ndp::OnTimer() {
  const int64_t now = stack_.clock().NowNs();
  std::vector<Detection> settled;
  std::vector<int> ask;
  int64_t next = kNever;
  {
    const absl::MutexLock lock(&mu_);
    for (auto it = detections_.begin(); it != detections_.end();) {
      if (it->second <= now) {
        settled.push_back(it->first);
        it = detections_.erase(it);
      } else {
        next = std::min(next, it->second);
        ++it;
      }
    }
    for (auto& [index, state] : autoconfigurations_) {
      if (state.answered) {
        next = std::min(next, now + kNsPerSecond);  // Lifetimes are looked at once a second.
        continue;
      }
      if (state.sent >= kSolicitationsMax) continue;
      if (state.due_ns <= now) {
        ask.push_back(index);
        ++state.sent;
        state.due_ns = now + kSolicitationIntervalNs;
      }
      if (state.sent < kSolicitationsMax) next = std::min(next, state.due_ns);
    }
  }
  for (const Detection& detection : settled) {
    stack_.UpdateAddress(detection.interface_index, detection.address, [](InterfaceAddress& a) {
      if (a.state == AddressState::kTentative) a.state = AddressState::kPreferred;
    });
  }
  for (const int index : ask)
    if (Interface* interface = stack_.FindInterface(index)) SendRouterSolicitation(*interface);
  stack_.ExpireConfiguration();
  stack_.timers().Arm(*this, next);
}

}  // namespace netstack
