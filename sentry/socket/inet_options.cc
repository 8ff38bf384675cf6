// Options of the internet sockets. On a loopback without packets most have nothing to act on: they
// are checked, kept and given back, so that a program reads what it set. Those that promise
// something we do not do are refused.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "sentry/socket/inet_socket.h"
#include "sentry/socket/interfaces.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

struct PlainOptionRule {
  int level;
  int name;
  int32_t initial;
  int32_t minimum;
  int32_t maximum;
  bool is_flag;
};

constexpr int32_t kAny = INT32_MAX;

constexpr PlainOptionRule kRules[] = {
    {IPPROTO_IP, IP_TOS, 0, 0, 255, false},
    {IPPROTO_IP, IP_TTL, 64, -1, 255, false},
    {IPPROTO_IP, IP_PKTINFO, 0, 0, kAny, true},
    {IPPROTO_IP, IP_RECVERR, 0, 0, kAny, true},
    {IPPROTO_IP, IP_RECVTOS, 0, 0, kAny, true},
    {IPPROTO_IP, IP_RECVTTL, 0, 0, kAny, true},
    {IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_WANT, 0, 5, false},
    {IPPROTO_IP, IP_FREEBIND, 0, 0, kAny, true},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 0, 0, kAny, true},
    {IPPROTO_IP, IP_MULTICAST_TTL, 1, -1, 255, false},
    {IPPROTO_IP, IP_MULTICAST_LOOP, 1, 0, kAny, true},
    {IPPROTO_IP, IP_MULTICAST_ALL, 1, 0, 1, true},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, 64, -1, 255, false},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 1, -1, 255, false},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, 1, 0, 1, true},
    {IPPROTO_IPV6, IPV6_TCLASS, 0, -1, 255, false},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, 0, 0, kAny, true},
    {IPPROTO_IPV6, IPV6_RECVERR, 0, 0, kAny, true},
    {IPPROTO_IPV6, IPV6_RECVTCLASS, 0, 0, kAny, true},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 0, 0, kAny, true},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_WANT, 0, 5, false},
    {IPPROTO_UDPLITE, 10, 0, 0, 65535, false},  // UDPLITE_SEND_CSCOV
    {IPPROTO_UDPLITE, 11, 0, 0, 65535, false},  // UDPLITE_RECV_CSCOV
    {IPPROTO_TCP, TCP_NODELAY, 0, 0, kAny, true},
    {IPPROTO_TCP, TCP_CORK, 0, 0, kAny, true},
    {IPPROTO_TCP, TCP_KEEPIDLE, 7200, 1, 32767, false},
    {IPPROTO_TCP, TCP_KEEPINTVL, 75, 1, 32767, false},
    {IPPROTO_TCP, TCP_KEEPCNT, 9, 1, 127, false},
    {IPPROTO_TCP, TCP_SYNCNT, 6, 1, 127, false},
    {IPPROTO_TCP, TCP_LINGER2, 60, -1, kAny, false},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, 0, kAny, false},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP, 0, 0, kAny, false},
    {IPPROTO_TCP, TCP_QUICKACK, 1, 0, kAny, true},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, 0, 0, kAny, false},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, INT32_MIN, kAny, false},
};

const PlainOptionRule* FindRule(int level, int name) {
  const auto* found = std::find_if(
      std::begin(kRules), std::end(kRules),
      [&](const PlainOptionRule& rule) { return rule.level == level && rule.name == name; });
  return found == std::end(kRules) ? nullptr : found;
}

// IP options may be given as one byte.
Result<int32_t> ShortOrNumber(int level, std::span<const uint8_t> value) {
  if (level == IPPROTO_IP && value.size() >= 1 && value.size() < sizeof(int32_t))
    return int32_t{value[0]};
  return OptionNumber(value);
}

constexpr std::string_view kCongestion = "cubic";
constexpr int32_t kSegmentBytes = 65483;  // lo's MTU less headers.

}  // namespace

std::optional<int32_t> InetSocket::PlainOption(int level, int name) {
  const PlainOptionRule* rule = FindRule(level, name);
  if (rule == nullptr) return std::nullopt;
  const absl::MutexLock lock(&name_mu_);
  const auto found = plain_options_.find({level, name});
  return found == plain_options_.end() ? rule->initial : found->second;
}

void InetSocket::CopyOptionsFrom(InetSocket& listener) {
  std::map<std::pair<int, int>, int32_t> plain;
  {
    const absl::MutexLock lock(&listener.name_mu_);
    plain = listener.plain_options_;
  }
  {
    const absl::MutexLock lock(&name_mu_);
    plain_options_.swap(plain);
  }
  options().keep_alive = listener.options().keep_alive.load();
  options().receive_bytes = listener.options().receive_bytes.load();
  options().send_bytes = listener.options().send_bytes.load();
  options().linger_on = listener.options().linger_on.load();
  options().linger_seconds = listener.options().linger_seconds.load();
  options().oob_inline = listener.options().oob_inline.load();
}

Result<std::vector<uint8_t>> InetSocket::GetOption(Task& task, int level, int name) {
  if (level == SOL_SOCKET) return Socket::GetOption(task, level, name);
  if (level == IPPROTO_IPV6 && kind().family != AF_INET6) return Errno(EOPNOTSUPP);
  if (level == IPPROTO_TCP && protocol() != IPPROTO_TCP) return Errno(EOPNOTSUPP);
  if (level == IPPROTO_UDPLITE && protocol() != IPPROTO_UDPLITE) return Errno(ENOPROTOOPT);
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) return OptionValue(v6_only() ? 1 : 0);
  if (level == IPPROTO_IP && name == IP_MTU) {
    if (!connected_peer()) return Errno(ENOTCONN);
    return OptionValue(kLoopbackMtu);
  }
  if (const auto value = PlainOption(level, name)) return OptionValue(*value);
  return Errno(ENOPROTOOPT);
}

Result<void> InetSocket::SetOption(Task& task, int level, int name,
                                   std::span<const uint8_t> value) {
  if (level == SOL_SOCKET) {
    TRY(Socket::SetOption(task, level, name, value));
    reuse_address_ = options().reuse_address.load();
    reuse_port_ = options().reuse_port.load();
    return {};
  }
  if (level == IPPROTO_IPV6 && kind().family != AF_INET6) return Errno(ENOPROTOOPT);
  if ((level == IPPROTO_TCP || level == IPPROTO_UDPLITE) && protocol() != level)
    return Errno(ENOPROTOOPT);
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) {
    const int32_t on = TRY(OptionNumber(value));
    if (local().port != 0) return Errno(EINVAL);
    v6_only_ = on != 0;
    return {};
  }
  const PlainOptionRule* rule = FindRule(level, name);
  if (rule == nullptr) return Errno(ENOPROTOOPT);
  int32_t number = TRY(ShortOrNumber(level, value));
  if (rule->is_flag) {
    number = number != 0 ? 1 : 0;
  } else if (number < rule->minimum || number > rule->maximum) {
    return Errno(EINVAL);
  }
  if (number == -1 && rule->minimum == -1) number = rule->initial;
  const absl::MutexLock lock(&name_mu_);
  plain_options_[{level, name}] = number;
  return {};
}

Result<std::vector<uint8_t>> InetStreamSocket::GetOption(Task& task, int level, int name) {
  if (level != IPPROTO_TCP) return InetSocket::GetOption(task, level, name);
  switch (name) {
    case TCP_MAXSEG:
      return OptionValue(core_.state() == StreamCore::State::kConnected ? kSegmentBytes : 536);
    case TCP_CONGESTION: {
      std::vector<uint8_t> text(kCongestion.begin(), kCongestion.end());
      text.resize(16);
      return text;
    }
    case TCP_INFO: {
      tcp_info info = {};
      info.tcpi_state = static_cast<uint8_t>(state_number());
      info.tcpi_snd_mss = info.tcpi_rcv_mss = info.tcpi_advmss = kSegmentBytes;
      info.tcpi_pmtu = kLoopbackMtu;
      info.tcpi_snd_cwnd = 10;
      if (listening()) {
        info.tcpi_unacked = static_cast<uint32_t>(core_.backlog_length());
        info.tcpi_sacked = static_cast<uint32_t>(core_.backlog_max());
      }
      const auto* raw = reinterpret_cast<const uint8_t*>(&info);
      return std::vector<uint8_t>(raw, raw + sizeof(info));
    }
    default:
      return InetSocket::GetOption(task, level, name);
  }
}

Result<void> InetStreamSocket::SetOption(Task& task, int level, int name,
                                         std::span<const uint8_t> value) {
  if (level != IPPROTO_TCP) {
    TRY(InetSocket::SetOption(task, level, name, value));
    if (const auto inbox = core_.inbox()) inbox->set_urgent_inline(options().oob_inline);
    return {};
  }
  switch (name) {
    case TCP_MAXSEG: {
      const int32_t bytes = TRY(OptionNumber(value));
      return bytes < 88 || bytes > 32767 ? Errno(EINVAL) : Result<void>();
    }
    case TCP_CONGESTION: {
      const std::string_view wanted(reinterpret_cast<const char*>(value.data()), value.size());
      return wanted.substr(0, wanted.find('\0')) == kCongestion ? Result<void>() : Errno(ENOENT);
    }
    default:
      return InetSocket::SetOption(task, level, name, value);
  }
}

}  // namespace sentry
