// Raw ICMP and ICMPv6 sockets (raw(7), icmp(7)): ping and traceroute. A received IPv4 packet comes
// with its header, an IPv6 one without (RFC 3542 3). IP_HDRINCL and other protocols are left out.

#include <linux/capability.h>
#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "netstack/header/bytes.h"
#include "netstack/header/checksum.h"
#include "netstack/stack/raw.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/socket/channel.h"
#include "sentry/socket/network_namespace.h"
#include "sentry/socket/stack_socket_internal.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;
using netstack::SlabRef;
using netstack::Slice;

constexpr size_t kPayloadMax = 65507;
constexpr int kIcmpFilterOption = 1;  // ICMP_FILTER, ICMP6_FILTER: both 1 at their level.

class RawInbox final : public netstack::RawReceiver {
 public:
  RawInbox(RightsInFlight& rights, int family, std::shared_ptr<WaitQueue> queue)
      : channel(std::make_shared<Channel>(rights, Channel::Mode::kRecords, std::move(queue),
                                          Channel::Limits{})),
        family_(family) {}

  bool OnRaw(const netstack::Received& received) override {
    const bool v4 = family_ == AF_INET;
    netstack::Packet& whole = *received.packet;
    Packet packet;
    packet.data.resize(whole.size());
    whole.CopyTo({reinterpret_cast<uint8_t*>(packet.data.data()), packet.data.size()});
    if (received.transport_offset >= packet.data.size()) return false;
    const auto type = static_cast<uint8_t>(packet.data[received.transport_offset]);
    // A set bit blocks (both filters).
    if ((blocked[type / 32].load(std::memory_order_relaxed) >> (type % 32) & 1) != 0) return false;
    if (!v4)
      packet.data.erase(packet.data.begin(), packet.data.begin() + received.transport_offset);
    packet.from = FormatInetAddress(FromStack(received.source, 0), family_);
    if (wants_hops) {
      ControlMessage message;
      message.level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
      message.type = v4 ? IP_TTL : IPV6_HOPLIMIT;
      const int32_t hops = received.hop_limit;
      const auto* raw = reinterpret_cast<const uint8_t*>(&hops);
      message.data.assign(raw, raw + sizeof(hops));
      packet.ancillary.others.push_back(std::move(message));
    }
    return channel->Push(std::move(packet)).ok();
  }

  const std::shared_ptr<Channel> channel;
  std::array<std::atomic<uint32_t>, 8> blocked = {};
  std::atomic<bool> wants_hops{false};

 private:
  const int family_;
};

class StackRawSocket final : public StackInetSocket {
 public:
  StackRawSocket(Kernel& kernel, std::shared_ptr<StackNetwork> network, const Kind& kind,
                 bool nonblocking, CredentialsRef credentials)
      : StackInetSocket(kernel, std::move(network), kind, nonblocking, std::move(credentials)),
        inbox_(std::make_shared<RawInbox>(kernel.network().rights(), kind.family, shared_queue())) {
    stack().raw().Add(kind.family == AF_INET, static_cast<uint8_t>(kind.protocol), inbox_);
  }
  ~StackRawSocket() override {
    std::shared_ptr<RawInbox> last = std::move(inbox_);
    last.reset();
    stack().raw().RemoveExpired();
  }

  // No ports: a name is an address.
  Result<void> Bind(Task&, const SocketAddress& address) override {
    const InetAddress wanted = TRY(ParseInetAddress(address, kind().family));
    if (!wanted.is_any() && !IsOwnAddress(wanted)) return Errno(EADDRNOTAVAIL);
    SetNames(wanted, connected_peer());
    return {};
  }
  Result<void> Connect(Task&, const SocketAddress& address) override {
    SetPeer(TRY(Destination(address)));
    return {};
  }
  Result<size_t> Send(Task& task, SendRequest& request) override;
  Result<ReceiveResult> Receive(Task&, ReceiveRequest& request) override {
    if ((request.flags & MSG_ERRQUEUE) != 0) return Errno(EAGAIN);
    return inbox_->channel->Receive(request, false);
  }
  Result<void> Shutdown(ShutdownHow) override { return Errno(ENOTCONN); }
  Result<void> SetOption(Task& task, int level, int name, std::span<const uint8_t> value) override;
  PollMask Poll(PollMask interest) override {
    const PollMask mask = kPollWritable | (inbox_->channel->HasData() ? kPollReadable : 0);
    return mask & (interest | kPollAlways);
  }
  int state_number() override { return 7; }

 protected:
  Result<uint64_t> InputQueued() override { return uint64_t{inbox_->channel->NextBytes()}; }
  void OnBufferSizes() override { inbox_->channel->set_byte_limit(options().receive_bytes); }

 private:
  std::shared_ptr<RawInbox> inbox_;
};

Result<void> StackRawSocket::SetOption(Task& task, int level, int name,
                                       std::span<const uint8_t> value) {
  const bool v4 = kind().family == AF_INET;
  const bool filter = name == kIcmpFilterOption && level == (v4 ? int{SOL_RAW} : int{SOL_ICMPV6});
  if (filter) {
    if (value.size() > 32) return Errno(EINVAL);
    std::array<uint32_t, 8> words = {};
    std::memcpy(words.data(), value.data(), value.size());
    for (size_t i = 0; i < words.size(); ++i) inbox_->blocked[i] = words[i];
    return {};
  }
  // Where the checksum is: ICMPv6's is always computed (RFC 3542 3.1).
  if (!v4 && name == IPV6_CHECKSUM) return {};
  TRY(InetSocket::SetOption(task, level, name, value));
  inbox_->wants_hops =
      PlainOption(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVTTL : IPV6_RECVHOPLIMIT)
          .value_or(0) != 0;
  return {};
}

Result<size_t> StackRawSocket::Send(Task&, SendRequest& request) {
  const size_t size = request.from.remaining();
  if (size > kPayloadMax) return Errno(EMSGSIZE);
  const auto peer = connected_peer();
  if (request.to == nullptr && !peer) return Errno(EDESTADDRREQ);
  const InetAddress to = request.to != nullptr ? TRY(Destination(*request.to)) : *peer;
  const InetAddress from = local();
  const bool v4 = to.is_v4();
  const auto destination = ToStack(to);
  const auto path = TRY(
      stack().FindPath(destination, from.is_any() ? netstack::IpAddress::Any(v4) : ToStack(from)));
  auto packet = netstack::Packet::New();
  if (size != 0) {
    Slice slice{SlabRef::New(size), 0, static_cast<uint32_t>(size)};
    if (TRY(request.from.CopyIn(std::as_writable_bytes(std::span(slice.slab->data(), size)))) <
        size)
      return Errno(EFAULT);
    if (!v4 && size >= 4) {
      netstack::StoreBe16(slice.slab->data() + 2, 0);
      netstack::Checksum sum;
      netstack::AddPseudoHeader(sum, path.source, destination, IPPROTO_ICMPV6, size);
      sum.Add(slice.bytes());
      netstack::StoreBe16(slice.slab->data() + 2, sum.Value());
    }
    packet->Append(std::move(slice));
  }
  packet->checksum = netstack::ChecksumState::kVerified;
  const int32_t hops = v4 ? PlainOption(IPPROTO_IP, IP_TTL).value_or(64)
                          : PlainOption(IPPROTO_IPV6, IPV6_UNICAST_HOPS).value_or(64);
  TRY(stack().Send(path,
                   {.source = path.source,
                    .destination = destination,
                    .protocol = static_cast<uint8_t>(kind().protocol),
                    .hop_limit = static_cast<uint8_t>(hops)},
                   std::move(packet)));
  stack().Drain();
  return size;
}

}  // namespace

Result<SocketRef> NewStackRawSocket(Task& task, std::shared_ptr<StackNetwork> network,
                                    const Socket::Kind& kind, bool nonblocking) {
  if (!task.credentials()->HasCapability(CAP_NET_RAW)) return Errno(EPERM);
  const int icmp = kind.family == AF_INET ? int{IPPROTO_ICMP} : int{IPPROTO_ICMPV6};
  if (kind.protocol != icmp) return Errno(EPROTONOSUPPORT);
  return SocketRef(std::make_shared<StackRawSocket>(task.kernel(), std::move(network), kind,
                                                    nonblocking, task.credentials()));
}

}  // namespace sentry
