#include "gofer/network/options.h"

#include <linux/udp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <iterator>

namespace gofer::network {
namespace {

struct Rule {
  int level;
  int name;
  bool may_set;
};

constexpr bool kGet = false;
constexpr bool kGetAndSet = true;

constexpr Rule kRules[] = {
    {SOL_SOCKET, SO_ACCEPTCONN, kGet},
    {SOL_SOCKET, SO_BROADCAST, kGetAndSet},
    {SOL_SOCKET, SO_DONTROUTE, kGetAndSet},
    {SOL_SOCKET, SO_ERROR, kGet},
    {SOL_SOCKET, SO_KEEPALIVE, kGetAndSet},
    {SOL_SOCKET, SO_LINGER, kGetAndSet},
    {SOL_SOCKET, SO_NO_CHECK, kGetAndSet},
    {SOL_SOCKET, SO_OOBINLINE, kGetAndSet},
    {SOL_SOCKET, SO_RCVBUF, kGetAndSet},
    {SOL_SOCKET, SO_RCVLOWAT, kGetAndSet},
    {SOL_SOCKET, SO_REUSEADDR, kGetAndSet},
    {SOL_SOCKET, SO_REUSEPORT, kGetAndSet},
    {SOL_SOCKET, SO_SNDBUF, kGetAndSet},
    {SOL_SOCKET, SO_SNDLOWAT, kGet},
    {SOL_SOCKET, SO_TIMESTAMP, kGetAndSet},
    {SOL_SOCKET, SO_TIMESTAMPNS, kGetAndSet},
    {IPPROTO_IP, IP_ADD_MEMBERSHIP, kGetAndSet},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, kGetAndSet},
    {IPPROTO_IP, IP_DROP_MEMBERSHIP, kGetAndSet},
    {IPPROTO_IP, IP_FREEBIND, kGetAndSet},
    {IPPROTO_IP, IP_MTU, kGet},
    {IPPROTO_IP, IP_MTU_DISCOVER, kGetAndSet},
    {IPPROTO_IP, IP_MULTICAST_ALL, kGetAndSet},
    {IPPROTO_IP, IP_MULTICAST_IF, kGetAndSet},
    {IPPROTO_IP, IP_MULTICAST_LOOP, kGetAndSet},
    {IPPROTO_IP, IP_MULTICAST_TTL, kGetAndSet},
    {IPPROTO_IP, IP_PKTINFO, kGetAndSet},
    {IPPROTO_IP, IP_RECVERR, kGetAndSet},
    {IPPROTO_IP, IP_RECVTOS, kGetAndSet},
    {IPPROTO_IP, IP_RECVTTL, kGetAndSet},
    {IPPROTO_IP, IP_TOS, kGetAndSet},
    {IPPROTO_IP, IP_TTL, kGetAndSet},
    {IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, kGetAndSet},
    {IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, kGetAndSet},
    {IPPROTO_IPV6, IPV6_MTU, kGet},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, kGetAndSet},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, kGetAndSet},
    {IPPROTO_IPV6, IPV6_MULTICAST_IF, kGetAndSet},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, kGetAndSet},
    {IPPROTO_IPV6, IPV6_RECVERR, kGetAndSet},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, kGetAndSet},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, kGetAndSet},
    {IPPROTO_IPV6, IPV6_RECVTCLASS, kGetAndSet},
    {IPPROTO_IPV6, IPV6_TCLASS, kGetAndSet},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, kGetAndSet},
    {IPPROTO_IPV6, IPV6_V6ONLY, kGetAndSet},
    {IPPROTO_TCP, TCP_CONGESTION, kGetAndSet},
    {IPPROTO_TCP, TCP_CORK, kGetAndSet},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, kGetAndSet},
    {IPPROTO_TCP, TCP_FASTOPEN, kGetAndSet},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, kGetAndSet},
    {IPPROTO_TCP, TCP_INFO, kGet},
    {IPPROTO_TCP, TCP_KEEPCNT, kGetAndSet},
    {IPPROTO_TCP, TCP_KEEPIDLE, kGetAndSet},
    {IPPROTO_TCP, TCP_KEEPINTVL, kGetAndSet},
    {IPPROTO_TCP, TCP_LINGER2, kGetAndSet},
    {IPPROTO_TCP, TCP_MAXSEG, kGetAndSet},
    {IPPROTO_TCP, TCP_NODELAY, kGetAndSet},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, kGetAndSet},
    {IPPROTO_TCP, TCP_QUICKACK, kGetAndSet},
    {IPPROTO_TCP, TCP_SYNCNT, kGetAndSet},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, kGetAndSet},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP, kGetAndSet},
    {IPPROTO_UDP, UDP_GRO, kGetAndSet},
    {IPPROTO_UDP, UDP_SEGMENT, kGetAndSet},
};

const Rule* Find(int level, int name) {
  const auto* found = std::find_if(std::begin(kRules), std::end(kRules), [&](const Rule& rule) {
    return rule.level == level && rule.name == name;
  });
  return found == std::end(kRules) ? nullptr : found;
}

}  // namespace

bool MayGetOption(int level, int name) { return Find(level, name) != nullptr; }

bool MaySetOption(int level, int name) {
  const Rule* rule = Find(level, name);
  return rule != nullptr && rule->may_set;
}

}  // namespace gofer::network
