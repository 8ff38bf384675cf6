#include "netstack/ip/icmp.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/hash/hash.h"
#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/ip/ipv4.h"
#include "netstack/ip/ipv6.h"
#include "netstack/ip/ndp.h"
#include "netstack/stack/stack.h"

namespace netstack {
namespace {

constexpr size_t kHeader = 8;

namespace v4 {
constexpr uint8_t kEchoReply = 0;
constexpr uint8_t kUnreachable = 3;
constexpr uint8_t kEcho = 8;
constexpr uint8_t kTimeExceeded = 11;
constexpr uint8_t kParameterProblem = 12;
}  // namespace v4
namespace v6 {
constexpr uint8_t kUnreachable = 1;
constexpr uint8_t kTooBig = 2;
constexpr uint8_t kTimeExceeded = 3;
constexpr uint8_t kParameterProblem = 4;
constexpr uint8_t kEcho = 128;
constexpr uint8_t kEchoReply = 129;
constexpr uint8_t kRouterSolicitation = 133;
constexpr uint8_t kRedirect = 137;
}  // namespace v6

// Linux's icmp_err_convert (net/ipv4/icmp.c) and icmpv6_err_convert.
void ConvertV4(uint8_t type, uint8_t code, TransportError& error) {
  struct Meaning {
    int error;
    bool hard;
  };
  static constexpr std::array<Meaning, 16> kUnreachables = {{{ENETUNREACH, false},
                                                             {EHOSTUNREACH, false},
                                                             {ENOPROTOOPT, true},
                                                             {ECONNREFUSED, true},
                                                             {EMSGSIZE, false},
                                                             {EOPNOTSUPP, false},
                                                             {ENETUNREACH, true},
                                                             {EHOSTDOWN, true},
                                                             {ENONET, true},
                                                             {ENETUNREACH, true},
                                                             {EHOSTUNREACH, true},
                                                             {ENETUNREACH, false},
                                                             {EHOSTUNREACH, false},
                                                             {EHOSTUNREACH, true},
                                                             {EHOSTUNREACH, true},
                                                             {EHOSTUNREACH, true}}};
  if (type == v4::kUnreachable && code < kUnreachables.size()) {
    error.error = kUnreachables[code].error;
    error.hard = kUnreachables[code].hard;
  } else if (type == v4::kTimeExceeded) {
    error.error = EHOSTUNREACH;
  } else if (type == v4::kParameterProblem) {
    error.error = EPROTO;
    error.hard = true;
  }
}

void ConvertV6(uint8_t type, uint8_t code, TransportError& error) {
  switch (type) {
    case v6::kUnreachable: {
      static constexpr std::array<int, 7> kCodes = {
          ENETUNREACH, EACCES, EHOSTUNREACH, EHOSTUNREACH, ECONNREFUSED, EACCES, EACCES};
      error.error = code < kCodes.size() ? kCodes[code] : EPROTO;
      error.hard = code == 1 || code >= 4;
      break;
    }
    case v6::kTooBig:
      error.error = EMSGSIZE;
      break;
    case v6::kTimeExceeded:
      error.error = EHOSTUNREACH;
      break;
    case v6::kParameterProblem:
      error.error = EPROTO;
      error.hard = code <= 1;
      break;
    default:
      break;
  }
}

// The RFC 1191 7.1 plateau below `total`, for routers that do not tell.
uint32_t PlateauBelow(uint32_t total) {
  static constexpr uint32_t kPlateaus[] = {32000, 17914, 8166, 4352, 2002,
                                           1492,  1006,  508,  296,  68};
  for (const uint32_t plateau : kPlateaus)
    if (plateau < total) return plateau;
  return 68;
}

}  // namespace

Icmp::Icmp(Stack& stack) : stack_(stack) {
  const int64_t now = stack.clock().NowNs();
  const absl::MutexLock lock(&mu_);
  all_ = {kBurst * (kNsPerSecond / kPerSecond), now};
  for (Bucket& bucket : peers_) bucket = {kPeerBurst * kPeerIntervalNs, now};
}

bool Icmp::Take(Bucket& bucket, int64_t now, int64_t cost_ns, int64_t burst) {
  bucket.tokens_ns =
      std::min(burst * cost_ns, bucket.tokens_ns + std::max<int64_t>(0, now - bucket.updated_ns));
  bucket.updated_ns = now;
  if (bucket.tokens_ns < cost_ns) return false;
  bucket.tokens_ns -= cost_ns;
  return true;
}

bool Icmp::TakeToken(const IpAddress& destination) {
  const int64_t now = stack_.clock().NowNs();
  const absl::MutexLock lock(&mu_);
  Bucket& peer = peers_[absl::Hash<IpAddress>()(destination) % peers_.size()];
  const bool allowed = Take(peer, now, kPeerIntervalNs, kPeerBurst) &&
                       Take(all_, now, kNsPerSecond / kPerSecond, kBurst);
  if (!allowed) Count(stack_.counters().icmp.out_limited);
  return allowed;
}

void Icmp::Receive(Received received) {
  Count(stack_.counters().icmp.in_messages);
  Packet& packet = *received.packet;
  const bool v4 = received.destination.is_v4();
  if (packet.checksum == ChecksumState::kUnknown || !v4) {
    Checksum sum;
    const size_t size = packet.size() - received.transport_offset;
    PacketPtr payload = packet.Clone();
    payload->TrimFront(received.transport_offset);
    if (!v4) AddPseudoHeader(sum, received.source, received.destination, kProtocolIcmpv6, size);
    payload->AddTo(sum);
    if (sum.Value() != 0) {
      Count(stack_.counters().icmp.in_checksum_errors);
      return;
    }
  }
  if (packet.Pull(received.transport_offset + kHeader) == nullptr) {
    Count(stack_.counters().icmp.in_errors);
    return;
  }
  if (v4) {
    ReceiveV4(received);
  } else {
    ReceiveV6(received);
  }
}

void Icmp::ReceiveV4(Received& received) {
  const uint32_t offset = received.transport_offset;
  const uint8_t* message = received.packet->Pull(offset + kHeader) + offset;
  switch (message[0]) {
    case v4::kEcho:
      // RFC 1122 3.2.2.6 lets a host be silent to groups; Linux is by default.
      if (!received.to_group) AnswerEcho(received, v4::kEchoReply);
      break;
    case v4::kUnreachable:
    case v4::kTimeExceeded:
    case v4::kParameterProblem: {
      Count(stack_.counters().icmp.in_unreachables);
      const size_t size = std::min<size_t>(received.packet->size(), Packet::kHeaderBytesMax);
      const uint8_t* whole = received.packet->Pull(size);
      if (whole != nullptr) ReceiveError(received, whole + offset, size - offset);
      break;
    }
    default:  // Replies go to raw sockets; quench and redirects are not followed.
      break;
  }
}

void Icmp::ReceiveV6(Received& received) {
  const uint32_t offset = received.transport_offset;
  const uint8_t* message = received.packet->Pull(offset + kHeader) + offset;
  if (message[0] == v6::kEcho) {
    if (!received.to_group || !received.source.is_any()) AnswerEcho(received, v6::kEchoReply);
  } else if (message[0] >= v6::kRouterSolicitation && message[0] <= v6::kRedirect) {
    stack_.ndp().Receive(received);
  } else if (message[0] >= v6::kUnreachable && message[0] <= v6::kParameterProblem) {
    Count(stack_.counters().icmp.in_unreachables);
    const size_t size = std::min<size_t>(received.packet->size(), Packet::kHeaderBytesMax);
    const uint8_t* whole = received.packet->Pull(size);
    if (whole != nullptr) ReceiveError(received, whole + offset, size - offset);
  }
}

// `message` holds the ICMP header and the start of the quoted packet.
void Icmp::ReceiveError(const Received& received, const uint8_t* message, size_t size) {
  if (size < kHeader) return;
  const bool v4 = received.destination.is_v4();
  const uint8_t* quoted = message + kHeader;
  size_t quoted_size = size - kHeader;
  TransportError error;
  error.type = message[0];
  error.code = message[1];
  error.from_icmp = true;
  error.reporter = received.source;
  size_t header = 0;
  if (v4) {
    if (quoted_size < Ipv4::kHeaderBytes + 8 || quoted[0] >> 4 != 4) return;
    header = (quoted[0] & 0xfu) * 4u;
    if ((LoadBe16(quoted + 6) & 0x1fff) != 0) return;  // Not a first fragment: no ports.
    error.local = IpAddress::FromV4(quoted + 12);
    error.remote = IpAddress::FromV4(quoted + 16);
    error.protocol = quoted[9];
    ConvertV4(error.type, error.code, error);
    if (error.error == EMSGSIZE) {
      error.mtu = LoadBe16(message + 6);
      if (error.mtu == 0) error.mtu = PlateauBelow(LoadBe16(quoted + 2));
    }
  } else {
    if (quoted_size < Ipv6::kHeaderBytes + 8 || quoted[0] >> 4 != 6) return;
    header = Ipv6::kHeaderBytes;
    error.local = IpAddress::FromV6(quoted + 8);
    error.remote = IpAddress::FromV6(quoted + 24);
    error.protocol = quoted[6];
    if (error.protocol == kProtocolFragment) {
      if (quoted_size < header + 16 || (LoadBe16(quoted + header + 2) & 0xfff8) != 0) return;
      error.protocol = quoted[header];
      header += 8;
    }
    ConvertV6(error.type, error.code, error);
    if (error.error == EMSGSIZE) error.mtu = std::max(LoadBe32(message + 4), Ipv6::kMtuMin);
  }
  if (header < Ipv4::kHeaderBytes || quoted_size < header + 8) return;
  // It must be about a packet that we sent.
  if (error.error == 0 || error.local != received.destination) return;
  error.quoted = {quoted + header, quoted_size - header};
  stack_.ReportError(error);
}

void Icmp::AnswerEcho(Received& received, uint8_t reply_type) {
  Count(stack_.counters().icmp.in_echos);
  const bool v4 = received.destination.is_v4();
  // A group is no source (RFC 4443 4.2): the interface's address then.
  const IpAddress source = received.to_group ? IpAddress::Any(v4) : received.destination;
  auto path = stack_.FindPath(received.source, source,
                              received.source.is_link_local() ? received.interface->index() : 0);
  if (!path.ok()) return;
  PacketPtr reply = Packet::New();
  const uint8_t* message =
      received.packet->Pull(received.transport_offset + kHeader) + received.transport_offset;
  uint8_t header[kHeader];
  std::memcpy(header, message, kHeader);
  received.packet->TrimFront(received.transport_offset + kHeader);
  for (Slice& slice : received.packet->TakeSlices()) reply->Append(std::move(slice));
  header[0] = reply_type;
  header[1] = 0;
  StoreBe16(header + 2, 0);
  std::memcpy(reply->Prepend(kHeader), header, kHeader);
  Checksum sum;
  if (!v4)
    AddPseudoHeader(sum, path.value().source, received.source, kProtocolIcmpv6, reply->size());
  reply->AddTo(sum);
  StoreBe16(reply->header() + 2, sum.Value());
  reply->checksum = ChecksumState::kVerified;
  Count(stack_.counters().icmp.out_echo_replies);
  Count(stack_.counters().icmp.out_messages);
  (void)stack_.Send(path.value(),
                    {.source = path.value().source,
                     .destination = received.source,
                     .protocol = v4 ? kProtocolIcmp : kProtocolIcmpv6,
                     .traffic_class = received.traffic_class},
                    std::move(reply));
}

bool Icmp::MayAnswer(Packet& packet) {
  if (packet.link_broadcast) return false;
  if (packet.is_v4) {
    const uint8_t* p = packet.Pull(Ipv4::kHeaderBytes);
    if (p == nullptr) return false;
    const size_t header = (p[0] & 0xfu) * 4u;
    const IpAddress source = IpAddress::FromV4(p + 12);
    const IpAddress destination = IpAddress::FromV4(p + 16);
    if (source.is_any() || destination.is_multicast() || destination.is_limited_broadcast())
      return false;
    if ((LoadBe16(p + 6) & 0x1fff) != 0) return false;
    if (p[9] != kProtocolIcmp) return true;
    p = packet.Pull(header + 1);
    const bool query = p != nullptr && (p[header] == v4::kEcho || p[header] == v4::kEchoReply);
    return query;
  }
  const uint8_t* p = packet.Pull(Ipv6::kHeaderBytes);
  if (p == nullptr) return false;
  const IpAddress source = IpAddress::FromV6(p + 8);
  const bool group = IpAddress::FromV6(p + 24).is_multicast();
  if (source.is_any() || source.is_multicast() || group) return false;
  if (p[6] != kProtocolIcmpv6) return true;
  p = packet.Pull(Ipv6::kHeaderBytes + 1);
  return p != nullptr && p[Ipv6::kHeaderBytes] >= 128;  // Below: errors.
}

void Icmp::SendError(Packet& packet, uint8_t type, uint8_t code, uint32_t word) {
  if (!MayAnswer(packet)) return;
  const bool v4 = packet.is_v4;
  const uint8_t* p = packet.Pull(v4 ? Ipv4::kHeaderBytes : Ipv6::kHeaderBytes);
  if (p == nullptr) return;
  const IpAddress to = v4 ? IpAddress::FromV4(p + 12) : IpAddress::FromV6(p + 8);
  const IpAddress from = v4 ? IpAddress::FromV4(p + 16) : IpAddress::FromV6(p + 24);
  auto path = stack_.FindPath(to, from, to.is_link_local() ? packet.interface_index : 0);
  if (!path.ok() || !TakeToken(to)) return;
  // RFC 1812 4.3.2.3: up to 576 bytes; RFC 4443 2.4 (c): up to the minimal MTU.
  const size_t room =
      v4 ? 576 - Ipv4::kHeaderBytes - kHeader : Ipv6::kMtuMin - Ipv6::kHeaderBytes - kHeader;
  PacketPtr error = Packet::New();
  std::vector<uint8_t> quote(std::min(room, packet.size()));
  packet.CopyTo(quote);
  error->Append(Slice::Copy(quote));
  uint8_t* header = error->Prepend(kHeader);
  header[0] = type;
  header[1] = code;
  StoreBe16(header + 2, 0);
  StoreBe32(header + 4, word);
  Checksum sum;
  if (!v4) AddPseudoHeader(sum, path.value().source, to, kProtocolIcmpv6, error->size());
  error->AddTo(sum);
  StoreBe16(error->header() + 2, sum.Value());
  error->checksum = ChecksumState::kVerified;
  Count(stack_.counters().icmp.out_messages);
  (void)stack_.Send(path.value(),
                    {.source = path.value().source,
                     .destination = to,
                     .protocol = v4 ? kProtocolIcmp : kProtocolIcmpv6,
                     .traffic_class = v4 ? uint8_t{0xc0} : uint8_t{0}},
                    std::move(error));
}

void Icmp::SendPortUnreachable(Packet& packet) {
  Count(stack_.counters().icmp.out_unreachables);
  SendError(packet, packet.is_v4 ? v4::kUnreachable : v6::kUnreachable, packet.is_v4 ? 3 : 4, 0);
}

void Icmp::SendProtocolUnreachable(Packet& packet, uint32_t next_field_offset) {
  Count(stack_.counters().icmp.out_unreachables);
  if (packet.is_v4) {
    SendError(packet, v4::kUnreachable, 2, 0);
  } else {
    SendError(packet, v6::kParameterProblem, 1, next_field_offset);
  }
}

void Icmp::SendReassemblyTimeout(PacketPtr packet) {
  SendError(*packet, packet->is_v4 ? v4::kTimeExceeded : v6::kTimeExceeded, 1, 0);
}

void Icmp::SendParameterProblem(Packet& packet, uint8_t code, uint32_t pointer) {
  SendError(packet, v6::kParameterProblem, code, pointer);
}

}  // namespace netstack
