#include "netstack/udp/table.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/ip/icmp.h"
#include "netstack/stack/stack.h"

namespace netstack::udp {

using base::Errno;
using base::Result;

void Table::Bind(const std::shared_ptr<Receiver>& receiver, const Binding& binding) {
  const absl::MutexLock lock(&mu_);
  auto& entries = ports_[binding.local_port];
  for (Entry& entry : entries) {
    if (entry.identity != receiver.get()) continue;
    entry.binding = binding;
    return;
  }
  entries.push_back({receiver, receiver.get(), binding});
}

void Table::Unbind(const Receiver* receiver, uint16_t port) {
  const absl::MutexLock lock(&mu_);
  const auto found = ports_.find(port);
  if (found == ports_.end()) return;
  std::erase_if(found->second, [&](const Entry& entry) { return entry.identity == receiver; });
  if (found->second.empty()) ports_.erase(found);
}

// How well a binding fits, as Linux counts (compute_score, net/ipv4/udp.c); -1: not at all.
int Table::Score(const Binding& binding, const Received& received, uint16_t remote_port) {
  const bool v4 = received.destination.is_v4();
  int score = 0;
  if (binding.local.is_any()) {
    const bool both = binding.local == IpAddress::V6Any() && !binding.v6_only;
    if (binding.local.is_v4() != v4 && !(v4 && both)) return -1;
    score += binding.local.is_v4() == v4 ? 1 : 0;
  } else {
    if (binding.local != received.destination && !received.destination.is_multicast() &&
        !received.to_group)
      return -1;
    if (binding.local != received.destination && binding.local.is_v4() != v4) return -1;
    score += 4;
  }
  if (!binding.remote.is_any()) {
    if (binding.remote != received.source) return -1;
    score += 4;
  }
  if (binding.remote_port != 0) {
    if (binding.remote_port != remote_port) return -1;
    score += 4;
  }
  if (binding.interface_index != 0) {
    if (binding.interface_index != received.interface->index()) return -1;
    score += 4;
  }
  return score;
}

Table::Receivers Table::Find(const Received& received, uint16_t local_port, uint16_t remote_port) {
  Receivers found;
  const absl::MutexLock lock(&mu_);
  const auto entries = ports_.find(local_port);
  if (entries == ports_.end()) return found;
  int best = -1;
  std::vector<const Entry*> candidates;
  for (const Entry& entry : entries->second) {
    const int score = Score(entry.binding, received, remote_port);
    if (score < 0) continue;
    if (received.to_group) {
      candidates.push_back(&entry);  // Everybody gets it.
      continue;
    }
    if (score > best) candidates.clear();
    if (score >= best) candidates.push_back(&entry);
    best = std::max(best, score);
  }
  if (!received.to_group && candidates.size() > 1) {
    // Sharing: by the flow, so that one peer meets one socket; else the latest, as Linux has it.
    const bool shares = candidates.back()->binding.shares;
    const size_t hash = absl::HashOf(received.source, remote_port, received.destination);
    const Entry* chosen = shares ? candidates[hash % candidates.size()] : candidates.back();
    candidates.assign(1, chosen);
  }
  for (const Entry* entry : candidates)
    if (auto receiver = entry->receiver.lock()) found.push_back(std::move(receiver));
  return found;
}

void Table::Receive(Received received) {
  auto& counters = stack_.counters().udp;
  Packet& packet = *received.packet;
  const uint32_t offset = received.transport_offset;
  const uint8_t* p = packet.Pull(offset + kHeaderBytes);
  const size_t length = p == nullptr ? 0 : LoadBe16(p + offset + 4);
  if (p == nullptr || length < kHeaderBytes || offset + length > packet.size()) {
    Count(counters.in_errors);
    return;
  }
  p += offset;
  const uint16_t source_port = LoadBe16(p);
  const uint16_t destination_port = LoadBe16(p + 2);
  const bool v4 = received.destination.is_v4();
  const bool none = LoadBe16(p + 6) == 0;
  packet.Truncate(offset + length);
  // RFC 8200 8.1: over IPv6 a datagram without a checksum is dropped.
  bool good = !none || v4;
  if (good && !none && packet.checksum == ChecksumState::kUnknown) {
    Checksum sum;
    AddPseudoHeader(sum, received.source, received.destination, kProtocolUdp, length);
    PacketPtr datagram = packet.Clone();
    datagram->TrimFront(offset);
    datagram->AddTo(sum);
    good = sum.Value() == 0;
  }
  if (!good) {
    Count(counters.in_checksum_errors);
    Count(counters.in_errors);
    return;
  }
  const Receivers receivers = Find(received, destination_port, source_port);
  if (receivers.empty()) {
    Count(counters.no_ports);
    if (!received.to_group) stack_.icmp().SendPortUnreachable(packet);
    return;
  }
  Count(counters.in_datagrams);
  packet.TrimFront(offset + kHeaderBytes);
  for (const auto& receiver : receivers) {
    const PacketPtr copy = receivers.size() > 1 ? packet.Clone() : nullptr;
    Datagram datagram{.source = received.source,
                      .destination = received.destination,
                      .source_port = source_port,
                      .destination_port = destination_port,
                      .hop_limit = received.hop_limit,
                      .traffic_class = received.traffic_class,
                      .interface_index = received.interface->index(),
                      .payload = copy != nullptr ? *copy : packet};
    receiver->OnDatagram(datagram);
  }
}

void Table::OnError(const TransportError& error) {
  if (error.quoted.size() < kHeaderBytes) return;
  const uint16_t local_port = LoadBe16(error.quoted.data());
  const uint16_t remote_port = LoadBe16(error.quoted.data() + 2);
  Interface* interface = stack_.FindInterface(Stack::kLoopbackIndex);
  // As if the peer had answered; an interface that a socket is bound to is not known here.
  Received received;
  received.source = error.remote;
  received.destination = error.local;
  received.interface = interface;
  const Receivers receivers = Find(received, local_port, remote_port);
  if (receivers.empty()) return;
  if (error.error == EMSGSIZE && error.mtu != 0) stack_.UpdatePathMtu(error.remote, error.mtu);
  for (const auto& receiver : receivers) receiver->OnError(error);
}

Result<void> Table::Send(const udp::Send& send, PacketPtr payload) {
  const size_t length = payload->size() + kHeaderBytes;
  if (length > 65535) return Errno(EMSGSIZE);
  const Path path = TRY(stack_.FindPath(send.destination, send.source, send.interface_index));
  uint8_t* p = payload->Prepend(kHeaderBytes);
  StoreBe16(p, send.source_port);
  StoreBe16(p + 2, send.destination_port);
  StoreBe16(p + 4, static_cast<uint32_t>(length));
  StoreBe16(p + 6, 0);
  if (send.no_checksum && send.destination.is_v4()) {
    payload->checksum = ChecksumState::kVerified;
  } else {
    Checksum sum;
    AddPseudoHeader(sum, path.source, send.destination, kProtocolUdp, length);
    StoreBe16(p + 6, sum.Sum());
    payload->checksum = ChecksumState::kPartial;
    payload->checksum_field = 6;
    payload->transport_bytes = static_cast<uint32_t>(length);
  }
  Count(stack_.counters().udp.out_datagrams);
  const Result<void> result = stack_.Send(path,
                                          {.source = path.source,
                                           .destination = send.destination,
                                           .protocol = kProtocolUdp,
                                           .hop_limit = send.hop_limit,
                                           .traffic_class = send.traffic_class,
                                           .dont_fragment = send.dont_fragment},
                                          std::move(payload));
  stack_.Drain();
  return result;
}

}  // namespace netstack::udp
