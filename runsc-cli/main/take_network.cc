#include "runsc-cli/main/take_network.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"

namespace runsc {
namespace {

constexpr int kReceiveBytes = 8 << 20;
constexpr int kSendBytes = 4 << 20;
constexpr size_t kLinksMax = 16;

absl::Status HostError(absl::string_view what) {
  return absl::InternalError(absl::StrCat("cannot ", what, ": ", strerror(errno)));
}

// Requests of rtnetlink(7). The host's kernel is trusted; lengths are checked all the same.
class Netlink {
 public:
  absl::Status Open() {
    socket_ = base::Fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    return socket_ ? absl::OkStatus() : HostError("open a netlink socket");
  }
  using Visitor = std::function<void(const nlmsghdr& header, std::span<const char> body)>;
  absl::Status Dump(uint16_t type, const Visitor& visit) {
    struct {
      nlmsghdr header;
      rtgenmsg body;
    } request = {};
    request.header.nlmsg_len = NLMSG_LENGTH(sizeof(rtgenmsg));
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    if (send(socket_.get(), &request, request.header.nlmsg_len, 0) < 0)
      return HostError("ask for the network's configuration");
    return ReadUntilDone(visit);
  }
  // A whole request; the kernel's verdict.
  absl::Status Change(std::vector<char> request, absl::string_view what) {
    if (send(socket_.get(), request.data(), request.size(), 0) < 0) return HostError(what);
    absl::Status verdict = absl::OkStatus();
    const absl::Status read =
        ReadUntilDone([&](const nlmsghdr& header, std::span<const char> body) {
          int32_t error = 0;
          if (header.nlmsg_type != NLMSG_ERROR || body.size() < sizeof(error)) return;
          std::memcpy(&error, body.data(), sizeof(error));
          errno = -error;
          if (error != 0) verdict = HostError(what);
        });
    return read.ok() ? verdict : read;
  }

 private:
  absl::Status ReadUntilDone(const Visitor& visit) {
    std::vector<char> buffer(1 << 17);
    while (true) {
      const ssize_t got = recv(socket_.get(), buffer.data(), buffer.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return HostError("read the network's configuration");
      std::span<const char> rest(buffer.data(), static_cast<size_t>(got));
      while (rest.size() >= sizeof(nlmsghdr)) {
        nlmsghdr header = {};
        std::memcpy(&header, rest.data(), sizeof(header));
        if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > rest.size()) break;
        const auto body = rest.first(header.nlmsg_len).subspan(NLMSG_HDRLEN);
        if (header.nlmsg_type == NLMSG_DONE) return absl::OkStatus();
        visit(header, body);
        if (header.nlmsg_type == NLMSG_ERROR) return absl::OkStatus();
        rest = rest.subspan(std::min<size_t>(NLMSG_ALIGN(header.nlmsg_len), rest.size()));
      }
    }
  }
  base::Fd socket_;
};

void VisitAttributes(std::span<const char> bytes,
                     const std::function<void(uint16_t type, std::span<const char>)>& visit) {
  while (bytes.size() >= sizeof(rtattr)) {
    rtattr attribute = {};
    std::memcpy(&attribute, bytes.data(), sizeof(attribute));
    if (attribute.rta_len < sizeof(attribute) || attribute.rta_len > bytes.size()) return;
    visit(attribute.rta_type, bytes.first(attribute.rta_len).subspan(RTA_LENGTH(0)));
    bytes = bytes.subspan(std::min<size_t>(RTA_ALIGN(attribute.rta_len), bytes.size()));
  }
}

template <typename T>
bool Take(std::span<const char>& body, T& value) {
  if (body.size() < sizeof(T)) return false;
  std::memcpy(&value, body.data(), sizeof(T));
  body = body.subspan(std::min<size_t>(NLMSG_ALIGN(sizeof(T)), body.size()));
  return true;
}

template <size_t N, typename T>
void Copy(std::span<const char> from, std::array<T, N>& to) {
  std::memcpy(to.data(), from.data(), std::min(from.size(), N));
}

uint32_t Number(std::span<const char> from) {
  uint32_t value = 0;
  if (from.size() >= sizeof(value)) std::memcpy(&value, from.data(), sizeof(value));
  return value;
}

bool IsTaken(const NetworkConfig& config, int32_t index) {
  return std::any_of(config.links.begin(), config.links.end(),
                     [&](const LinkConfig& link) { return link.index == index; });
}

void ReadLink(std::span<const char> body, NetworkConfig& config) {
  ifinfomsg info = {};
  if (!Take(body, info)) return;
  // What is down, or no Ethernet, stays the host's.
  if ((info.ifi_flags & IFF_UP) == 0 || info.ifi_type != ARPHRD_ETHER) return;
  if (config.links.size() >= kLinksMax) return;
  LinkConfig link;
  link.index = info.ifi_index;
  VisitAttributes(body, [&](uint16_t type, std::span<const char> value) {
    if (type == IFLA_IFNAME) Copy(value.first(std::min<size_t>(value.size(), 15)), link.name);
    if (type == IFLA_MTU) link.mtu = Number(value);
    if (type == IFLA_ADDRESS) Copy(value, link.mac);
  });
  config.links.push_back(link);
}

void ReadAddress(std::span<const char> body, NetworkConfig& config) {
  ifaddrmsg info = {};
  if (!Take(body, info)) return;
  AddressConfig address;
  address.index = static_cast<int32_t>(info.ifa_index);
  address.family = info.ifa_family;
  address.bits = info.ifa_prefixlen;
  if (!IsTaken(config, address.index)) return;
  bool local = false;
  VisitAttributes(body, [&](uint16_t type, std::span<const char> value) {
    // Where both are, IFA_ADDRESS is the peer's.
    if (type == IFA_ADDRESS && !local) Copy(value, address.address);
    if (type != IFA_LOCAL) return;
    Copy(value, address.address);
    local = true;
  });
  config.addresses.push_back(address);
}

void ReadRoute(std::span<const char> body, NetworkConfig& config) {
  rtmsg info = {};
  if (!Take(body, info)) return;
  if (info.rtm_table != RT_TABLE_MAIN || info.rtm_type != RTN_UNICAST) return;
  if ((info.rtm_flags & RTM_F_CLONED) != 0) return;
  RouteConfig route;
  route.family = info.rtm_family;
  route.bits = info.rtm_dst_len;
  route.scope = info.rtm_scope;
  route.protocol = info.rtm_protocol;
  VisitAttributes(body, [&](uint16_t type, std::span<const char> value) {
    switch (type) {
      case RTA_DST:
        Copy(value, route.destination);
        break;
      case RTA_GATEWAY:
        Copy(value, route.gateway);
        route.has_gateway = 1;
        break;
      case RTA_PREFSRC:
        Copy(value, route.source);
        route.has_source = 1;
        break;
      case RTA_OIF:
        route.index = static_cast<int32_t>(Number(value));
        break;
      case RTA_PRIORITY:
        route.metric = Number(value);
        break;
      default:
        break;
    }
  });
  if (IsTaken(config, route.index)) config.routes.push_back(route);
}

void ReadNeighbor(std::span<const char> body, NetworkConfig& config) {
  ndmsg info = {};
  if (!Take(body, info)) return;
  if ((info.ndm_state & NUD_PERMANENT) == 0 || !IsTaken(config, info.ndm_ifindex)) return;
  NeighborConfig neighbor;
  neighbor.index = info.ndm_ifindex;
  neighbor.family = info.ndm_family;
  bool has_mac = false;
  VisitAttributes(body, [&](uint16_t type, std::span<const char> value) {
    if (type == NDA_DST) Copy(value, neighbor.address);
    if (type != NDA_LLADDR) return;
    Copy(value, neighbor.mac);
    has_mac = true;
  });
  if (has_mac) config.neighbors.push_back(neighbor);
}

absl::Status OpenLink(const LinkConfig& link, base::Fd& out) {
  const std::string name(link.name.data());
  base::Fd fd(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!fd) return HostError("open a packet socket");
  const int on = 1;
  if (setsockopt(fd.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) != 0)
    return HostError(absl::StrCat("set up the packet socket of ", name));
  // Older kernels: our own frames are told apart when they come.
  setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on));
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBytes, sizeof(kReceiveBytes));
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kSendBytes, sizeof(kSendBytes));
  sockaddr_ll address = {};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = link.index;
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    return HostError(absl::StrCat("bind a packet socket to ", name));
  out = std::move(fd);
  return absl::OkStatus();
}

// The host's stack has no address there any more, and makes none.
absl::Status Silence(Netlink& netlink, const NetworkConfig& config) {
  for (const LinkConfig& link : config.links) {
    const std::string path =
        absl::StrCat("/proc/sys/net/ipv6/conf/", link.name.data(), "/disable_ipv6");
    const base::Fd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    // Where there is no IPv6, or no writable /proc/sys, the addresses go one by one.
    if (file && write(file.get(), "1", 1) != 1) continue;
  }
  for (const AddressConfig& address : config.addresses) {
    const size_t size = address.family == AF_INET ? 4 : 16;
    std::vector<char> request(NLMSG_SPACE(sizeof(ifaddrmsg)) + RTA_SPACE(size));
    nlmsghdr header = {};
    header.nlmsg_len = static_cast<uint32_t>(request.size());
    header.nlmsg_type = RTM_DELADDR;
    header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    ifaddrmsg info = {};
    info.ifa_family = address.family;
    info.ifa_prefixlen = address.bits;
    info.ifa_index = static_cast<uint32_t>(address.index);
    rtattr attribute = {};
    attribute.rta_type = IFA_LOCAL;
    attribute.rta_len = static_cast<uint16_t>(RTA_LENGTH(size));
    std::memcpy(request.data(), &header, sizeof(header));
    std::memcpy(request.data() + NLMSG_HDRLEN, &info, sizeof(info));
    char* at = request.data() + NLMSG_SPACE(sizeof(ifaddrmsg));
    std::memcpy(at, &attribute, sizeof(attribute));
    std::memcpy(at + RTA_LENGTH(0), address.address.data(), size);
    const absl::Status removed =
        netlink.Change(std::move(request), "take an address from the host's stack");
    // IPv6's went with disable_ipv6.
    if (!removed.ok() && address.family == AF_INET) return removed;
  }
  return absl::OkStatus();
}

absl::Status TakeHere(TakenNetwork& network) {
  Netlink netlink;
  NetworkConfig& config = network.config;
  config.own_stack = true;
  absl::Status status = netlink.Open();
  const auto dump = [&](uint16_t ask, uint16_t answer, auto read) {
    if (!status.ok()) return;
    status = netlink.Dump(ask, [&](const nlmsghdr& header, std::span<const char> body) {
      if (header.nlmsg_type == answer) read(body, config);
    });
  };
  dump(RTM_GETLINK, RTM_NEWLINK, ReadLink);
  dump(RTM_GETADDR, RTM_NEWADDR, ReadAddress);
  dump(RTM_GETROUTE, RTM_NEWROUTE, ReadRoute);
  dump(RTM_GETNEIGH, RTM_NEWNEIGH, ReadNeighbor);
  for (const LinkConfig& link : config.links) {
    if (!status.ok()) return status;
    network.links.emplace_back();
    status = OpenLink(link, network.links.back());
  }
  return status.ok() ? Silence(netlink, config) : status;
}

}  // namespace

absl::Status TakeNetwork(const std::string& path, TakenNetwork& network) {
  const base::Fd own(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  const base::Fd target(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!own) return HostError("open /proc/self/ns/net; is /proc mounted?");
  if (!target) return HostError(absl::StrCat("open the network namespace ", path));
  if (setns(target.get(), CLONE_NEWNET) != 0)
    return HostError(absl::StrCat("enter the network namespace ", path, " (root is needed)"));
  const absl::Status status = TakeHere(network);
  if (setns(own.get(), CLONE_NEWNET) != 0) return HostError("return to the own network namespace");
  return status;
}

}  // namespace runsc
