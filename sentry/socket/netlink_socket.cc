// AF_NETLINK, route family only (rtnetlink(7)): libc's getaddrinfo and getifaddrs, Go and Java ask
// it which interfaces, addresses and routes exist: those of the namespace's table (interfaces.h),
// with the routes that follow from addresses. Changes are refused, multicast groups can be joined
// and never speak, other netlink families do not exist (EPROTONOSUPPORT).

#include <linux/capability.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_arp.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/socket/channel.h"
#include "sentry/socket/interfaces.h"
#include "sentry/socket/network_namespace.h"
#include "sentry/socket/socket.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;

constexpr size_t kRequestBytesMax = 65536;

// Builds netlink messages one after another.
class MessageWriter {
 public:
  MessageWriter(uint32_t sequence, uint32_t port) : sequence_(sequence), port_(port) {}

  template <typename Body>
  void Begin(uint16_t type, uint16_t flags, const Body& body) {
    start_ = bytes_.size();
    nlmsghdr header = {};
    header.nlmsg_type = type;
    header.nlmsg_flags = flags;
    header.nlmsg_seq = sequence_;
    header.nlmsg_pid = port_;
    Append(&header, sizeof(header));
    Append(&body, sizeof(body));
    Pad();
  }

  void Attribute(uint16_t type, std::span<const uint8_t> value) {
    rtattr attribute = {};
    attribute.rta_type = type;
    attribute.rta_len = static_cast<uint16_t>(sizeof(attribute) + value.size());
    Append(&attribute, sizeof(attribute));
    Append(value.data(), value.size());
    Pad();
  }
  void Attribute(uint16_t type, uint32_t value) {
    std::array<uint8_t, 4> raw;
    std::memcpy(raw.data(), &value, sizeof(value));
    Attribute(type, raw);
  }
  void Attribute(uint16_t type, std::string_view text) {
    std::vector<uint8_t> raw(text.begin(), text.end());
    raw.push_back(0);
    Attribute(type, raw);
  }

  void End() {
    const auto length = static_cast<uint32_t>(bytes_.size() - start_);
    std::memcpy(bytes_.data() + start_, &length, sizeof(length));
  }

  bool empty() const { return bytes_.empty(); }
  std::vector<std::byte> Take() { return std::exchange(bytes_, {}); }

 private:
  void Append(const void* data, size_t size) {
    const auto* first = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), first, first + size);
  }
  void Pad() { bytes_.resize((bytes_.size() + NLMSG_ALIGNTO - 1) / NLMSG_ALIGNTO * NLMSG_ALIGNTO); }

  const uint32_t sequence_;
  const uint32_t port_;
  size_t start_ = 0;
  std::vector<std::byte> bytes_;
};

bool IsLoopback(const Interface& interface) { return (interface.flags & IFF_LOOPBACK) != 0; }

size_t AddressBytes(const InterfaceAddress& address) { return address.family == AF_INET ? 4 : 16; }

std::span<const uint8_t> View(const InterfaceAddress& address) {
  return std::span(address.bytes).first(AddressBytes(address));
}

void AppendLink(MessageWriter& writer, const Interface& interface, uint16_t flags) {
  ifinfomsg body = {};
  body.ifi_family = AF_UNSPEC;
  body.ifi_type = interface.hardware_type;
  body.ifi_index = interface.index;
  body.ifi_flags = interface.flags;
  writer.Begin(RTM_NEWLINK, flags, body);
  constexpr std::array<uint8_t, 1> kZeroByte = {0};
  constexpr std::array<uint8_t, 1> kOperational = {IF_OPER_UP};
  std::array<uint8_t, 6> broadcast = {};
  if ((interface.flags & IFF_BROADCAST) != 0) broadcast.fill(0xff);
  writer.Attribute(IFLA_IFNAME, interface.name);
  writer.Attribute(IFLA_TXQLEN, 1000u);
  writer.Attribute(IFLA_OPERSTATE, IsLoopback(interface) ? kZeroByte : kOperational);
  writer.Attribute(IFLA_LINKMODE, kZeroByte);
  writer.Attribute(IFLA_MTU, interface.mtu);
  writer.Attribute(IFLA_QDISC, "noqueue");
  writer.Attribute(IFLA_ADDRESS, interface.hardware_address);
  writer.Attribute(IFLA_BROADCAST, broadcast);
  writer.End();
}

void AppendAddress(MessageWriter& writer, const Interface& interface,
                   const InterfaceAddress& address, uint16_t flags) {
  ifaddrmsg body = {};
  body.ifa_family = static_cast<uint8_t>(address.family);
  body.ifa_prefixlen = address.prefix_length;
  body.ifa_flags = IFA_F_PERMANENT;
  body.ifa_scope = address.scope;
  body.ifa_index = static_cast<uint32_t>(interface.index);
  writer.Begin(RTM_NEWADDR, flags, body);
  writer.Attribute(IFA_ADDRESS, View(address));
  if (address.family == AF_INET) {
    writer.Attribute(IFA_LOCAL, View(address));
    writer.Attribute(IFA_LABEL, interface.name);
  }
  writer.Attribute(IFA_FLAGS, static_cast<uint32_t>(IFA_F_PERMANENT));
  writer.End();
}

// The way to oneself, or to the neighbours of an address. lo's is all of 127.0.0.0/8.
void AppendRoute(MessageWriter& writer, const Interface& interface, const InterfaceAddress& address,
                 bool local, uint16_t flags) {
  const bool v4 = address.family == AF_INET;
  const bool whole_net = !local || (v4 && IsLoopback(interface));
  std::array<uint8_t, 16> destination = address.bytes;
  const auto bits =
      static_cast<size_t>(whole_net ? address.prefix_length : AddressBytes(address) * 8);
  for (size_t bit = bits; bit < destination.size() * 8; ++bit)
    destination[bit / 8] = static_cast<uint8_t>(destination[bit / 8] & ~(0x80U >> bit % 8));
  rtmsg body = {};
  body.rtm_family = static_cast<uint8_t>(address.family);
  body.rtm_dst_len = static_cast<uint8_t>(bits);
  body.rtm_table = local ? RT_TABLE_LOCAL : RT_TABLE_MAIN;
  body.rtm_protocol = RTPROT_KERNEL;
  body.rtm_scope = !v4 ? RT_SCOPE_UNIVERSE : local ? RT_SCOPE_HOST : RT_SCOPE_LINK;
  body.rtm_type = local ? RTN_LOCAL : RTN_UNICAST;
  writer.Begin(RTM_NEWROUTE, flags, body);
  writer.Attribute(RTA_TABLE, static_cast<uint32_t>(body.rtm_table));
  writer.Attribute(RTA_DST, std::span(destination).first(AddressBytes(address)));
  if (v4) writer.Attribute(RTA_PREFSRC, View(address));
  writer.Attribute(RTA_OIF, static_cast<uint32_t>(interface.index));
  writer.End();
}

class NetlinkSocket final : public Socket {
 public:
  NetlinkSocket(Task& task, const Kind& kind, bool nonblocking)
      : Socket(task.kernel(), kind, nonblocking, task.credentials()),
        inbox_(std::make_shared<Channel>(task.kernel().network().rights(), Channel::Mode::kRecords,
                                         shared_queue(), Channel::Limits{})) {}

  Result<void> Bind(Task& task, const SocketAddress& address) override {
    if (address.length < sizeof(sockaddr_nl) || address.family() != AF_NETLINK)
      return Errno(EINVAL);
    sockaddr_nl wanted = {};
    std::memcpy(&wanted, address.bytes.data(), sizeof(wanted));
    const absl::MutexLock lock(&mu_);
    if (port_ != 0 && wanted.nl_pid != port_ && wanted.nl_pid != 0) return Errno(EINVAL);
    groups_ = wanted.nl_groups;
    if (port_ == 0) port_ = wanted.nl_pid != 0 ? wanted.nl_pid : FreshPort(task);
    return {};
  }

  Result<void> Connect(Task&, const SocketAddress& address) override {
    if (address.family() != AF_NETLINK) return Errno(EINVAL);
    sockaddr_nl wanted = {};
    std::memcpy(&wanted, address.bytes.data(), std::min<size_t>(sizeof(wanted), address.length));
    // Only the kernel is there to talk to.
    return wanted.nl_pid == 0 ? Result<void>() : Errno(ECONNREFUSED);
  }

  Result<SocketAddress> LocalAddress() override {
    const absl::MutexLock lock(&mu_);
    return AddressOf(port_, groups_);
  }
  Result<SocketAddress> PeerAddress() override { return AddressOf(0, 0); }

  Result<size_t> Send(Task& task, SendRequest& request) override {
    if (request.to != nullptr) TRY(Connect(task, *request.to));
    const size_t size = request.from.remaining();
    if (size > kRequestBytesMax) return Errno(EMSGSIZE);
    std::vector<std::byte> bytes(size);
    if (TRY(request.from.CopyIn(bytes)) < size) return Errno(EFAULT);
    {
      const absl::MutexLock lock(&mu_);
      if (port_ == 0) port_ = FreshPort(task);
    }
    std::span<const std::byte> rest(bytes);
    while (rest.size() >= sizeof(nlmsghdr)) {
      nlmsghdr header = {};
      std::memcpy(&header, rest.data(), sizeof(header));
      if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > rest.size()) break;
      Handle(task, header, rest.first(header.nlmsg_len).subspan(sizeof(header)));
      rest = rest.subspan(std::min<size_t>(NLMSG_ALIGN(header.nlmsg_len), rest.size()));
    }
    return size;
  }

  Result<ReceiveResult> Receive(Task&, ReceiveRequest& request) override {
    ReceiveResult result = TRY(inbox_->Receive(request, false));
    return result;
  }

  bool TakesKernelMessages() const override { return true; }
  void PushFromKernel(std::span<const std::byte> data) override {
    Packet packet;
    packet.data.assign(data.begin(), data.end());
    packet.from = AddressOf(0, 0);
    (void)inbox_->Push(std::move(packet));  // As for answers: no room, no message.
  }

  Result<void> Shutdown(ShutdownHow) override { return Errno(EOPNOTSUPP); }

  Result<std::vector<uint8_t>> GetOption(Task& task, int level, int name) override {
    if (level == SOL_NETLINK) return Errno(ENOPROTOOPT);
    return Socket::GetOption(task, level, name);
  }
  Result<void> SetOption(Task& task, int level, int name, std::span<const uint8_t> value) override {
    if (level != SOL_NETLINK) return Socket::SetOption(task, level, name, value);
    switch (name) {
      case NETLINK_ADD_MEMBERSHIP:
      case NETLINK_DROP_MEMBERSHIP:
      case NETLINK_EXT_ACK:
      case NETLINK_CAP_ACK:
      case NETLINK_GET_STRICT_CHK:
      case NETLINK_NO_ENOBUFS:
        (void)TRY(OptionNumber(value));
        return {};
      default:
        return Errno(ENOPROTOOPT);
    }
  }

  PollMask Poll(PollMask interest) override {
    PollMask mask = kPollWritable;
    if (inbox_->HasData()) mask |= kPollReadable;
    return mask & (interest | kPollAlways);
  }

 protected:
  Result<uint64_t> InputQueued() override { return uint64_t{inbox_->NextBytes()}; }

 private:
  static SocketAddress AddressOf(uint32_t port, uint32_t groups) {
    sockaddr_nl raw = {};
    raw.nl_family = AF_NETLINK;
    raw.nl_pid = port;
    raw.nl_groups = groups;
    SocketAddress address;
    std::memcpy(address.bytes.data(), &raw, sizeof(raw));
    address.length = sizeof(raw);
    return address;
  }

  // Linux: the process id if it is free, else some number above all of those.
  uint32_t FreshPort(Task& task) {
    return static_cast<uint32_t>(task.group().id()) + (static_cast<uint32_t>(number()) << 16);
  }

  void Reply(MessageWriter& writer) {
    if (writer.empty()) return;
    Packet packet;
    packet.data = writer.Take();
    packet.from = AddressOf(0, 0);
    // A reader that is behind loses answers, as Linux drops them with ENOBUFS.
    (void)inbox_->Push(std::move(packet));
  }

  void ReplyError(MessageWriter& writer, const nlmsghdr& request, int error) {
    nlmsgerr body = {};
    body.error = -error;
    body.msg = request;
    writer.Begin(NLMSG_ERROR, 0, body);
    writer.End();
    Reply(writer);
  }

  void Handle(Task& task, const nlmsghdr& header, std::span<const std::byte> body);
  static void AppendDump(MessageWriter& writer, const InterfaceList& interfaces, uint16_t type,
                         int family);

  const std::shared_ptr<Channel> inbox_;
  absl::Mutex mu_;
  uint32_t port_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t groups_ ABSL_GUARDED_BY(mu_) = 0;
};

void NetlinkSocket::AppendDump(MessageWriter& writer, const InterfaceList& interfaces,
                               uint16_t type, int family) {
  for (const Interface& interface : interfaces) {
    if (type == RTM_GETLINK) AppendLink(writer, interface, NLM_F_MULTI);
    for (const InterfaceAddress& address : interface.addresses) {
      if (family != AF_UNSPEC && family != address.family) continue;
      if (type == RTM_GETADDR) AppendAddress(writer, interface, address, NLM_F_MULTI);
      if (type != RTM_GETROUTE) continue;
      AppendRoute(writer, interface, address, true, NLM_F_MULTI);
      if (!IsLoopback(interface)) AppendRoute(writer, interface, address, false, NLM_F_MULTI);
    }
  }
  // Of neighbours and rules there are none.
}

// Who has made a network namespace brings its loopback up and gives it its address. Ours has both
// from the beginning.
bool AsksForWhatIs(const nlmsghdr& header, std::span<const std::byte> body) {
  if (header.nlmsg_type == RTM_NEWADDR && body.size() >= sizeof(ifaddrmsg)) {
    ifaddrmsg wanted = {};
    std::memcpy(&wanted, body.data(), sizeof(wanted));
    return wanted.ifa_family == AF_INET && wanted.ifa_index == kLoopbackIndex &&
           wanted.ifa_prefixlen == 8;
  }
  if (header.nlmsg_type == RTM_NEWLINK && body.size() >= sizeof(ifinfomsg)) {
    ifinfomsg wanted = {};
    std::memcpy(&wanted, body.data(), sizeof(wanted));
    return wanted.ifi_index == kLoopbackIndex && (wanted.ifi_flags & IFF_UP) != 0;
  }
  return false;
}

void NetlinkSocket::Handle(Task& task, const nlmsghdr& header, std::span<const std::byte> body) {
  uint32_t port = 0;
  {
    const absl::MutexLock lock(&mu_);
    port = port_;
  }
  MessageWriter writer(header.nlmsg_seq, port);
  if ((header.nlmsg_flags & NLM_F_REQUEST) == 0 || header.nlmsg_type < NLMSG_MIN_TYPE) {
    if ((header.nlmsg_flags & NLM_F_ACK) != 0) ReplyError(writer, header, 0);
    return;
  }
  const int family = body.empty() ? AF_UNSPEC : static_cast<int>(body[0]);
  // Of each object's four types, NEW, DEL, GET and SET, only GET changes nothing.
  constexpr uint16_t kGet = 2;
  if (header.nlmsg_type < RTM_BASE || header.nlmsg_type > RTM_MAX) {
    ReplyError(writer, header, EOPNOTSUPP);
    return;
  }
  if ((header.nlmsg_type - RTM_BASE) % 4 != kGet) {
    const bool allowed =
        task.credentials()->HasCapabilityIn(network().owner(), CAP_NET_ADMIN);
    ReplyError(writer, header, !allowed ? EPERM : AsksForWhatIs(header, body) ? 0 : EOPNOTSUPP);
    return;
  }
  if ((header.nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP) {
    AppendDump(writer, *network().interfaces().Get(), header.nlmsg_type, family);
    Reply(writer);
    writer.Begin(NLMSG_DONE, NLM_F_MULTI, int32_t{0});
    writer.End();
    Reply(writer);
    return;
  }
  if (header.nlmsg_type == RTM_GETLINK && body.size() >= sizeof(ifinfomsg)) {
    ifinfomsg wanted = {};
    std::memcpy(&wanted, body.data(), sizeof(wanted));
    const auto interfaces = network().interfaces().Get();
    const int32_t index = wanted.ifi_index == 0 ? kLoopbackIndex : wanted.ifi_index;
    if (const Interface* found = FindInterface(*interfaces, index)) {
      AppendLink(writer, *found, 0);
      Reply(writer);
    } else {
      ReplyError(writer, header, ENODEV);
    }
    return;
  }
  // Looking up one route or address: there is no table to search but the local one.
  ReplyError(writer, header, header.nlmsg_type == RTM_GETROUTE ? ENETUNREACH : EOPNOTSUPP);
}

class NetlinkFamilyImpl final : public SocketFamily {
 public:
  Result<SocketRef> Make(Task& task, const Socket::Kind& kind, bool nonblocking) const override {
    if (kind.type != SOCK_RAW && kind.type != SOCK_DGRAM) return Errno(ESOCKTNOSUPPORT);
    if (kind.protocol != NETLINK_ROUTE && kind.protocol != NETLINK_KOBJECT_UEVENT)
      return Errno(EPROTONOSUPPORT);
    return SocketRef(std::make_shared<NetlinkSocket>(task, kind, nonblocking));
  }
};

}  // namespace

const SocketFamily& NetlinkFamily() {
  static const NetlinkFamilyImpl family;
  return family;
}

}  // namespace sentry
