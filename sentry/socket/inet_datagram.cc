// UDP over loopback, and how the family makes its sockets.

#include <linux/capability.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/socket/host_socket.h"
#include "sentry/socket/inet_ports.h"
#include "sentry/socket/inet_socket.h"
#include "sentry/socket/interfaces.h"
#include "sentry/socket/network_namespace.h"
#include "sentry/socket/stack_socket.h"

namespace sentry {

using base::Errno;
using base::Result;

InetDatagramSocket::InetDatagramSocket(Kernel& kernel, int family, int protocol, bool nonblocking,
                                       CredentialsRef credentials)
    : InetSocket(kernel, {family, SOCK_DGRAM, protocol}, nonblocking, std::move(credentials)),
      inbox_(std::make_shared<Channel>(kernel.network().rights(), Channel::Mode::kRecords,
                                       shared_queue(), Channel::Limits{})) {}

Result<void> InetDatagramSocket::Connect(Task&, const SocketAddress& address) {
  if (address.length >= 2 && address.family() == AF_UNSPEC) {
    SetPeer(std::nullopt);
    return {};
  }
  const InetAddress to = TRY(Destination(address));
  TRY(BindFor(to));
  SetPeer(to);
  return {};
}

// The socket's options, or what came with the message (ip(7), ipv6(7)). EINVAL.
Result<InetDatagramSocket::Header> InetDatagramSocket::HeaderFor(const Ancillary& ancillary,
                                                                 bool v4) {
  Header header;
  header.hop_limit =
      PlainOption(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TTL : IPV6_UNICAST_HOPS).value_or(64);
  header.traffic_class =
      PlainOption(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS).value_or(0);
  for (const ControlMessage& message : ancillary.others) {
    const bool of_v4 = message.level == IPPROTO_IP;
    if (message.level != IPPROTO_IPV6 && !of_v4) continue;
    const bool hop_limit = message.type == (of_v4 ? IP_TTL : IPV6_HOPLIMIT);
    const bool traffic_class = message.type == (of_v4 ? IP_TOS : IPV6_TCLASS);
    // There is one interface to send from, so the choice of it (PKTINFO) is no choice.
    if (!hop_limit && !traffic_class) continue;
    int32_t value = 0;
    if (message.data.size() == 1 && of_v4) {
      value = message.data[0];
    } else if (message.data.size() == sizeof(value)) {
      value = TRY(OptionNumber(message.data));
    } else {
      return Errno(EINVAL);
    }
    if (value < -1 || value > 255) return Errno(EINVAL);
    if (value == -1) continue;
    (hop_limit ? header.hop_limit : header.traffic_class) = value;
  }
  return header;
}

// In Linux's order: where to, hop limit, traffic class.
void InetDatagramSocket::AddControl(InetDatagramSocket& target, const InetAddress& to,
                                    const Header& header, Ancillary& ancillary) {
  const auto wants = [&](int level, int name) {
    return target.PlainOption(level, name).value_or(0) != 0;
  };
  const auto add = [&](int32_t level, int32_t type, const auto& value) {
    const auto* raw = reinterpret_cast<const uint8_t*>(&value);
    ancillary.others.push_back({level, type, {raw, raw + sizeof(value)}});
  };
  if (to.is_v4() && wants(IPPROTO_IP, IP_PKTINFO)) {
    in_pktinfo info = {};
    info.ipi_ifindex = kLoopbackIndex;
    info.ipi_addr.s_addr = info.ipi_spec_dst.s_addr = htonl(to.v4());
    add(IPPROTO_IP, IP_PKTINFO, info);
  }
  if (to.is_v4()) {
    if (wants(IPPROTO_IP, IP_RECVTTL)) add(IPPROTO_IP, IP_TTL, header.hop_limit);
    if (wants(IPPROTO_IP, IP_RECVTOS))
      add(IPPROTO_IP, IP_TOS, static_cast<uint8_t>(header.traffic_class));
  }
  if (target.kind().family != AF_INET6) return;
  if (wants(IPPROTO_IPV6, IPV6_RECVPKTINFO)) {
    in6_pktinfo info = {};
    std::copy(to.bytes.begin(), to.bytes.end(), std::begin(info.ipi6_addr.s6_addr));
    info.ipi6_ifindex = static_cast<uint32_t>(kLoopbackIndex);
    add(IPPROTO_IPV6, IPV6_PKTINFO, info);
  }
  if (to.is_v4()) return;
  if (wants(IPPROTO_IPV6, IPV6_RECVHOPLIMIT)) add(IPPROTO_IPV6, IPV6_HOPLIMIT, header.hop_limit);
  if (wants(IPPROTO_IPV6, IPV6_RECVTCLASS)) add(IPPROTO_IPV6, IPV6_TCLASS, header.traffic_class);
}

Result<void> InetDatagramSocket::Deliver(Task&, SendRequest& request, InetDatagramSocket& target,
                                         const InetAddress& to, const InetAddress& from) {
  const Header header = TRY(HeaderFor(request.ancillary, to.is_v4()));
  Packet packet;
  packet.data.resize(request.from.remaining());
  if (!packet.data.empty() && TRY(request.from.CopyIn(packet.data)) < packet.data.size())
    return Errno(EFAULT);
  packet.from = FormatInetAddress(from, target.kind().family);
  AddControl(target, to, header, packet.ancillary);
  // A full or closed receiver loses the datagram, as UDP does.
  (void)target.inbox_->Push(std::move(packet));
  return {};
}

Result<size_t> InetDatagramSocket::Send(Task& task, SendRequest& request) {
  if ((request.flags & MSG_OOB) != 0) return Errno(EOPNOTSUPP);
  if (const int error = refused_.exchange(0)) return Errno(error);
  if (request.from.remaining() > kDatagramBytesMax) return Errno(EMSGSIZE);
  if (write_ended_) return Errno(EPIPE);
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
  }
  InetAddress from = local();
  if (from.is_any()) {
    const uint16_t port = from.port;
    from = to.is_v4() ? InetAddress::V4(INADDR_LOOPBACK, port) : InetAddress::V6Loopback(port);
  }
  const size_t size = request.from.remaining();
  const auto target =
      std::static_pointer_cast<InetDatagramSocket>(ports().FindReceiver(protocol(), to, from));
  if (target == nullptr) {
    // The answer of an unused port (ICMP) reaches connected sockets only.
    request.from.Skip(size);
    if (peer) {
      refused_ = ECONNREFUSED;
      shared_queue()->Notify(POLLERR | kPollReadable);
    }
    return size;
  }
  TRY(Deliver(task, request, *target, to, from));
  return size;
}

Result<ReceiveResult> InetDatagramSocket::Receive(Task&, ReceiveRequest& request) {
  if ((request.flags & MSG_OOB) != 0) return Errno(EOPNOTSUPP);
  if ((request.flags & MSG_ERRQUEUE) != 0) return Errno(EAGAIN);
  if (const int error = refused_.exchange(0)) return Errno(error);
  return inbox_->Receive(request, false);
}

Result<void> InetDatagramSocket::Shutdown(ShutdownHow how) {
  if (!connected_peer()) return Errno(ENOTCONN);
  if (how != ShutdownHow::kRead) write_ended_ = true;
  if (how != ShutdownHow::kWrite) inbox_->FinishWriting();
  shared_queue()->Notify(kPollReadable | kPollWritable | POLLHUP | POLLRDHUP);
  return {};
}

PollMask InetDatagramSocket::Poll(PollMask interest) {
  PollMask mask = kPollWritable;
  if (inbox_->HasData()) mask |= kPollReadable;
  if (inbox_->writing_finished()) {
    mask |= kPollReadable | POLLRDHUP;
    if (write_ended_) mask |= POLLHUP;
  }
  if (refused_ != 0) mask |= POLLERR | kPollReadable;
  return mask & (interest | kPollAlways);
}

namespace {

class InetFamilyImpl final : public SocketFamily {
 public:
  Result<SocketRef> Make(Task& task, const Socket::Kind& kind, bool nonblocking) const override {
    if (const auto& host = task.own_namespaces().network->host())
      return NewHostSocket(task, host, kind, nonblocking);
    if (const auto& stack = task.own_namespaces().network->stack())
      return NewStackSocket(task, stack, kind, nonblocking);
    switch (kind.type) {
      case SOCK_STREAM:
        if (kind.protocol != 0 && kind.protocol != IPPROTO_TCP) return Errno(EPROTONOSUPPORT);
        return SocketRef(std::make_shared<InetStreamSocket>(task.kernel(), kind.family, nonblocking,
                                                            task.credentials()));
      case SOCK_DGRAM:
        // Echo sockets for ping: nobody is in net.ipv4.ping_group_range.
        if (kind.protocol == IPPROTO_ICMP || kind.protocol == IPPROTO_ICMPV6) return Errno(EACCES);
        if (kind.protocol != 0 && kind.protocol != IPPROTO_UDP &&
            kind.protocol != IPPROTO_UDPLITE) {
          return Errno(EPROTONOSUPPORT);
        }
        return SocketRef(std::make_shared<InetDatagramSocket>(
            task.kernel(), kind.family, kind.protocol == 0 ? IPPROTO_UDP : kind.protocol,
            nonblocking, task.credentials()));
      case SOCK_RAW:
        // No packets exist to look at.
        return Errno(task.credentials()->HasCapability(CAP_NET_RAW) ? EPROTONOSUPPORT : EPERM);
      default:
        return Errno(ESOCKTNOSUPPORT);
    }
  }
};

}  // namespace

const SocketFamily& InetFamily() {
  static const InetFamilyImpl family;
  return family;
}

}  // namespace sentry
