// UDP over the sandbox's own stack. What arrives goes into an inbox (Channel) with the control
// messages that the socket has asked for; errors that ICMP reports are told once, by the next call.

#include <linux/capability.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "netstack/udp/table.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/socket/channel.h"
#include "sentry/socket/inet_ports.h"
#include "sentry/socket/network_namespace.h"
#include "sentry/socket/stack_socket_internal.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;
using netstack::SlabRef;
using netstack::Slice;
namespace udp = netstack::udp;

constexpr size_t kPayloadMax = 65507;

// The socket's end in the stack. Outlives the socket by a datagram that is on its way.
class Inbox final : public udp::Receiver {
 public:
  Inbox(RightsInFlight& rights, int family, std::shared_ptr<WaitQueue> queue)
      : channel(
            std::make_shared<Channel>(rights, Channel::Mode::kRecords, queue, Channel::Limits{})),
        family_(family),
        queue_(std::move(queue)) {}

  void OnDatagram(udp::Datagram& datagram) override {
    Packet packet;
    packet.data.resize(datagram.payload.size());
    datagram.payload.CopyTo({reinterpret_cast<uint8_t*>(packet.data.data()), packet.data.size()});
    packet.from = FormatInetAddress(FromStack(datagram.source, datagram.source_port), family_);
    AddControl(datagram, packet.ancillary);
    // A full inbox loses the datagram, as UDP does.
    (void)channel->Push(std::move(packet));
  }
  void OnError(const netstack::TransportError& report) override {
    // Of an unconnected socket only those that ask for errors hear (ip(7), IP_RECVERR).
    if (!connected && !wants_errors) return;
    error = report.error;
    queue_->Notify(POLLERR | kPollReadable | kPollWritable);
  }

  const std::shared_ptr<Channel> channel;
  std::atomic<int> error{0};
  std::atomic<bool> connected{false}, wants_errors{false};
  std::atomic<bool> v4_info{false}, v4_hops{false}, v4_class{false};
  std::atomic<bool> v6_info{false}, v6_hops{false}, v6_class{false};

 private:
  static void Add(Ancillary& ancillary, int32_t level, int32_t type, const auto& value) {
    const auto* raw = reinterpret_cast<const uint8_t*>(&value);
    ancillary.others.push_back({level, type, {raw, raw + sizeof(value)}});
  }
  // In Linux's order: where to, hop limit, traffic class.
  void AddControl(const udp::Datagram& datagram, Ancillary& ancillary) const {
    const bool v4 = datagram.destination.is_v4();
    const auto hops = int32_t{datagram.hop_limit};
    if (v4 && v4_info) {
      in_pktinfo info = {};
      info.ipi_ifindex = datagram.interface_index;
      std::memcpy(&info.ipi_addr, datagram.destination.Packed().data(), 4);
      info.ipi_spec_dst = info.ipi_addr;
      Add(ancillary, IPPROTO_IP, IP_PKTINFO, info);
    }
    if (v4 && v4_hops) Add(ancillary, IPPROTO_IP, IP_TTL, hops);
    if (v4 && v4_class) Add(ancillary, IPPROTO_IP, IP_TOS, datagram.traffic_class);
    if (v6_info) {
      in6_pktinfo info = {};
      std::copy(datagram.destination.bytes.begin(), datagram.destination.bytes.end(),
                std::begin(info.ipi6_addr.s6_addr));
      info.ipi6_ifindex = static_cast<uint32_t>(datagram.interface_index);
      Add(ancillary, IPPROTO_IPV6, IPV6_PKTINFO, info);
    }
    if (v4) return;
    if (v6_hops) Add(ancillary, IPPROTO_IPV6, IPV6_HOPLIMIT, hops);
    if (v6_class) Add(ancillary, IPPROTO_IPV6, IPV6_TCLASS, int32_t{datagram.traffic_class});
  }
  const int family_;
  const std::shared_ptr<WaitQueue> queue_;
};

class StackDatagramSocket final : public StackInetSocket {
 public:
  StackDatagramSocket(Kernel& kernel, std::shared_ptr<StackNetwork> network, const Kind& kind,
                      bool nonblocking, CredentialsRef credentials)
      : StackInetSocket(kernel, std::move(network), kind, nonblocking, std::move(credentials)),
        inbox_(std::make_shared<Inbox>(kernel.network().rights(), kind.family, shared_queue())) {}
  ~StackDatagramSocket() override {
    if (const uint16_t port = local().port) stack().udp().Unbind(inbox_.get(), port);
  }

  Result<void> Bind(Task& task, const SocketAddress& address) override {
    TRY(InetSocket::Bind(task, address));
    Register();
    return {};
  }
  Result<void> Connect(Task& task, const SocketAddress& address) override;
  Result<size_t> Send(Task& task, SendRequest& request) override;
  Result<ReceiveResult> Receive(Task& task, ReceiveRequest& request) override;
  Result<void> Shutdown(ShutdownHow how) override;
  Result<void> SetOption(Task& task, int level, int name, std::span<const uint8_t> value) override;
  PollMask Poll(PollMask interest) override;
  int state_number() override { return connected_peer() ? 1 : 7; }

 protected:
  Result<uint64_t> InputQueued() override { return uint64_t{inbox_->channel->NextBytes()}; }
  int TakeError() override { return inbox_->error.exchange(0); }
  void OnBufferSizes() override { inbox_->channel->set_byte_limit(options().receive_bytes); }

 private:
  void Register();
  Result<udp::Send> Prepare(const SendRequest& request);

  const std::shared_ptr<Inbox> inbox_;
  std::atomic<bool> write_ended_{false};
};

void StackDatagramSocket::Register() {
  const InetAddress name = local();
  const auto peer = connected_peer();
  udp::Binding binding;
  binding.local = ToStack(name);
  binding.local_port = name.port;
  binding.v6_only = v6_only();
  binding.shares = shares_port();
  if (peer) {
    binding.remote = ToStack(*peer);
    binding.remote_port = peer->port;
  }
  inbox_->connected = peer.has_value();
  stack().udp().Bind(inbox_, binding);
}

Result<void> StackDatagramSocket::Connect(Task&, const SocketAddress& address) {
  if (address.length >= 2 && address.family() == AF_UNSPEC) {
    SetPeer(std::nullopt);
    if (local().port != 0) Register();
    return {};
  }
  const InetAddress to = TRY(Destination(address));
  TRY(BindFor(to));
  SetPeer(to);
  Register();
  return {};
}

Result<void> StackDatagramSocket::SetOption(Task& task, int level, int name,
                                            std::span<const uint8_t> value) {
  TRY(InetSocket::SetOption(task, level, name, value));
  const auto on = [&](int at, int option) { return PlainOption(at, option).value_or(0) != 0; };
  const bool v6 = kind().family == AF_INET6;
  inbox_->v4_info = on(IPPROTO_IP, IP_PKTINFO);
  inbox_->v4_hops = on(IPPROTO_IP, IP_RECVTTL);
  inbox_->v4_class = on(IPPROTO_IP, IP_RECVTOS);
  inbox_->v6_info = v6 && on(IPPROTO_IPV6, IPV6_RECVPKTINFO);
  inbox_->v6_hops = v6 && on(IPPROTO_IPV6, IPV6_RECVHOPLIMIT);
  inbox_->v6_class = v6 && on(IPPROTO_IPV6, IPV6_RECVTCLASS);
  inbox_->wants_errors = on(IPPROTO_IP, IP_RECVERR) || (v6 && on(IPPROTO_IPV6, IPV6_RECVERR));
  if (local().port != 0) Register();
  return {};
}

// Where to and with what: the socket's options, or what came with the message (ip(7), ipv6(7)).
Result<udp::Send> StackDatagramSocket::Prepare(const SendRequest& request) {
  const auto peer = connected_peer();
  InetAddress to;
  if (request.to != nullptr) {
    to = TRY(Destination(*request.to));
  } else if (peer) {
    to = *peer;
  } else {
    return Errno(EDESTADDRREQ);
  }
  if (to.port == 0) return Errno(EINVAL);
  if (local().port == 0) {
    const auto bound = BindTo(AnyAddress(kind().family));
    if (!bound.ok() && bound.error() != EINVAL) return Errno(EAGAIN);
    Register();
  }
  const InetAddress from = local();
  const bool v4 = to.is_v4();
  udp::Send send;
  send.source = from.is_any() ? netstack::IpAddress::Any(v4) : ToStack(from);
  send.destination = ToStack(to);
  send.source_port = from.port;
  send.destination_port = to.port;
  int32_t hops =
      v4 ? PlainOption(IPPROTO_IP, to.is_multicast() ? IP_MULTICAST_TTL : IP_TTL).value_or(64)
         : PlainOption(IPPROTO_IPV6, to.is_multicast() ? IPV6_MULTICAST_HOPS : IPV6_UNICAST_HOPS)
               .value_or(64);
  int32_t traffic_class =
      PlainOption(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS).value_or(0);
  const int32_t discover = PlainOption(IPPROTO_IP, IP_MTU_DISCOVER).value_or(0);
  send.dont_fragment = v4 && (discover == IP_PMTUDISC_DO || discover == IP_PMTUDISC_PROBE);
  send.no_checksum = options().no_check;
  for (const ControlMessage& message : request.ancillary.others) {
    const bool of_v4 = message.level == IPPROTO_IP;
    if (message.level != IPPROTO_IPV6 && !of_v4) continue;
    if (of_v4 && message.type == IP_PKTINFO && message.data.size() == sizeof(in_pktinfo)) {
      in_pktinfo info = {};
      std::memcpy(&info, message.data.data(), sizeof(info));
      send.interface_index = info.ipi_ifindex;
      if (info.ipi_spec_dst.s_addr != 0)
        send.source = netstack::IpAddress::FromV4(
            reinterpret_cast<const uint8_t*>(&info.ipi_spec_dst.s_addr));
      continue;
    }
    if (!of_v4 && message.type == IPV6_PKTINFO && message.data.size() == sizeof(in6_pktinfo)) {
      in6_pktinfo info = {};
      std::memcpy(&info, message.data.data(), sizeof(info));
      send.interface_index = static_cast<int>(info.ipi6_ifindex);
      const auto source = netstack::IpAddress::FromV6(info.ipi6_addr.s6_addr);
      if (!source.is_any()) send.source = source;
      continue;
    }
    const bool hop_limit = message.type == (of_v4 ? IP_TTL : IPV6_HOPLIMIT);
    const bool with_class = message.type == (of_v4 ? IP_TOS : IPV6_TCLASS);
    if (!hop_limit && !with_class) continue;
    const int32_t value = message.data.size() == 1 && of_v4 ? int32_t{message.data[0]}
                                                            : TRY(OptionNumber(message.data));
    if (value < -1 || value > 255) return Errno(EINVAL);
    if (value != -1) (hop_limit ? hops : traffic_class) = value;
  }
  send.hop_limit = static_cast<uint8_t>(hops);
  send.traffic_class = static_cast<uint8_t>(traffic_class);
  return send;
}

Result<size_t> StackDatagramSocket::Send(Task&, SendRequest& request) {
  if ((request.flags & MSG_OOB) != 0) return Errno(EOPNOTSUPP);
  if (const int error = inbox_->error.exchange(0)) return Errno(error);
  const size_t size = request.from.remaining();
  if (size > kPayloadMax) return Errno(EMSGSIZE);
  if (write_ended_) return Errno(EPIPE);
  const udp::Send send = TRY(Prepare(request));
  auto payload = netstack::Packet::New();
  if (size != 0) {
    Slice slice{SlabRef::New(size), 0, static_cast<uint32_t>(size)};
    if (TRY(request.from.CopyIn(std::as_writable_bytes(std::span(slice.slab->data(), size)))) <
        size)
      return Errno(EFAULT);
    payload->Append(std::move(slice));
  }
  TRY(stack().udp().Send(send, std::move(payload)));
  return size;
}

Result<ReceiveResult> StackDatagramSocket::Receive(Task&, ReceiveRequest& request) {
  if ((request.flags & MSG_OOB) != 0) return Errno(EOPNOTSUPP);
  if ((request.flags & MSG_ERRQUEUE) != 0) return Errno(EAGAIN);
  if (const int error = inbox_->error.exchange(0)) return Errno(error);
  return inbox_->channel->Receive(request, false);
}

Result<void> StackDatagramSocket::Shutdown(ShutdownHow how) {
  if (!connected_peer()) return Errno(ENOTCONN);
  if (how != ShutdownHow::kRead) write_ended_ = true;
  if (how != ShutdownHow::kWrite) inbox_->channel->FinishWriting();
  shared_queue()->Notify(kPollReadable | kPollWritable | POLLHUP | POLLRDHUP);
  return {};
}

PollMask StackDatagramSocket::Poll(PollMask interest) {
  PollMask mask = kPollWritable;
  if (inbox_->channel->HasData()) mask |= kPollReadable;
  if (inbox_->channel->writing_finished()) {
    mask |= kPollReadable | POLLRDHUP;
    if (write_ended_) mask |= POLLHUP;
  }
  if (inbox_->error != 0) mask |= POLLERR | kPollReadable;
  return mask & (interest | kPollAlways);
}

}  // namespace

Result<SocketRef> NewStackDatagramSocket(Task& task, std::shared_ptr<StackNetwork> network,
                                         const Socket::Kind& kind, bool nonblocking) {
  // Echo sockets for ping: nobody is in net.ipv4.ping_group_range.
  if (kind.protocol == IPPROTO_ICMP || kind.protocol == IPPROTO_ICMPV6) return Errno(EACCES);
  if (kind.protocol != 0 && kind.protocol != IPPROTO_UDP) return Errno(EPROTONOSUPPORT);
  const Socket::Kind known{kind.family, SOCK_DGRAM, IPPROTO_UDP};
  return SocketRef(std::make_shared<StackDatagramSocket>(task.kernel(), std::move(network), known,
                                                         nonblocking, task.credentials()));
}

}  // namespace sentry
