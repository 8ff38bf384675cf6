#include "gofer/network/interface_list.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/functional/function_ref.h"
#include "platform/base/log.h"

namespace gofer::network {
namespace {

constexpr size_t kAnswerBytesMax = 32768;  // The kernel's own largest piece of a dump.

using Bytes = std::span<const uint8_t>;

template <typename T>
bool Take(Bytes& from, T& value) {
  if (from.size() < sizeof(T)) return false;
  std::memcpy(&value, from.data(), sizeof(T));
  from = from.subspan(std::min<size_t>(NLMSG_ALIGN(sizeof(T)), from.size()));
  return true;
}

void ForEachAttribute(Bytes rest, absl::FunctionRef<void(uint16_t, Bytes)> visit) {
  while (rest.size() >= sizeof(rtattr)) {
    rtattr attribute;
    std::memcpy(&attribute, rest.data(), sizeof(attribute));
    if (attribute.rta_len < sizeof(attribute) || attribute.rta_len > rest.size()) return;
    visit(attribute.rta_type, rest.first(attribute.rta_len).subspan(sizeof(attribute)));
    rest = rest.subspan(std::min<size_t>(RTA_ALIGN(attribute.rta_len), rest.size()));
  }
}

template <size_t kSize>
void CopyTo(std::array<uint8_t, kSize>& to, Bytes from) {
  std::copy_n(from.begin(), std::min(kSize, from.size()), to.begin());
}

bool ParseLink(Bytes body, InterfaceEntry& entry) {
  ifinfomsg link;
  if (!Take(body, link)) return false;
  entry.index = static_cast<uint32_t>(link.ifi_index);
  entry.flags = link.ifi_flags;
  entry.hardware_type = link.ifi_type;
  ForEachAttribute(body, [&](uint16_t type, Bytes value) {
    if (type == IFLA_IFNAME) {
      std::copy_n(value.begin(), std::min(value.size(), entry.name.size() - 1), entry.name.begin());
    } else if (type == IFLA_MTU && value.size() == sizeof(entry.mtu)) {
      std::memcpy(&entry.mtu, value.data(), sizeof(entry.mtu));
    } else if (type == IFLA_ADDRESS) {
      CopyTo(entry.hardware_address, value);
    }
  });
  return true;
}

bool ParseAddress(Bytes body, InterfaceEntry& entry) {
  ifaddrmsg address;
  if (!Take(body, address)) return false;
  if (address.ifa_family != AF_INET && address.ifa_family != AF_INET6) return false;
  entry.index = address.ifa_index;
  entry.family = address.ifa_family;
  entry.prefix_length = address.ifa_prefixlen;
  entry.scope = address.ifa_scope;
  bool local = false;  // Of a point-to-point link IFA_ADDRESS is the other end.
  ForEachAttribute(body, [&](uint16_t type, Bytes value) {
    if (type == IFA_LOCAL || (type == IFA_ADDRESS && !local)) CopyTo(entry.address, value);
    local = local || type == IFA_LOCAL;
  });
  return true;
}

bool Ask(int socket, uint16_t type) {
  struct {
    nlmsghdr header;
    rtgenmsg body;
  } request = {};
  request.header.nlmsg_len = NLMSG_LENGTH(sizeof(request.body));
  request.header.nlmsg_type = type;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.header.nlmsg_seq = type;
  request.body.rtgen_family = AF_UNSPEC;
  iovec part = {&request, request.header.nlmsg_len};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  return sendmsg(socket, &message, 0) == static_cast<ssize_t>(request.header.nlmsg_len);
}

// False if the dump failed. `visit` gets the body of each message of the dump.
bool Dump(int socket, uint16_t type, absl::FunctionRef<void(Bytes)> visit) {
  if (!Ask(socket, type)) return false;
  std::vector<uint8_t> answer(kAnswerBytesMax);
  while (true) {
    iovec part = {answer.data(), answer.size()};
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    const ssize_t got = recvmsg(socket, &message, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    Bytes rest(answer.data(), static_cast<size_t>(got));
    while (rest.size() >= sizeof(nlmsghdr)) {
      nlmsghdr header;
      std::memcpy(&header, rest.data(), sizeof(header));
      if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > rest.size()) return false;
      if (header.nlmsg_seq == type) {
        if (header.nlmsg_type == NLMSG_DONE) return true;
        if (header.nlmsg_type == NLMSG_ERROR) return false;
        visit(rest.first(header.nlmsg_len).subspan(sizeof(header)));
      }
      rest = rest.subspan(std::min<size_t>(NLMSG_ALIGN(header.nlmsg_len), rest.size()));
    }
  }
}

}  // namespace

std::vector<InterfaceEntry> ListInterfaces(int netlink_socket) {
  std::vector<InterfaceEntry> entries;
  const auto add = [&](bool (*parse)(Bytes, InterfaceEntry&)) {
    return [&entries, parse](Bytes body) {
      InterfaceEntry entry;
      if (entries.size() < static_cast<size_t>(kInterfaceEntriesMax) && parse(body, entry))
        entries.push_back(entry);
    };
  };
  if (!Dump(netlink_socket, RTM_GETLINK, add(ParseLink)) ||
      !Dump(netlink_socket, RTM_GETADDR, add(ParseAddress))) {
    LOG_WARNING("cannot list the host's interfaces: errno %d; the guest sees none", errno);
    entries.clear();
  }
  return entries;
}

}  // namespace gofer::network
