// /proc/net: the loopback interface and the sockets, in the formats of net/ipv4/tcp_ipv4.c,
// net/ipv4/udp.c, net/ipv6 and net/unix/af_unix.c (6.12): ss, netstat and lsof parse them by
// column.

#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/socket/inet_ports.h"
#include "sentry/socket/inet_socket.h"
#include "sentry/socket/network_namespace.h"
#include "sentry/socket/unix_socket.h"

namespace sentry {
namespace {

using base::Result;

struct Fixed {
  const char* name;
  const char* text;
};

constexpr char kTcpHeading[] =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
    "inode                                                     \n";
constexpr char kTcp6Heading[] =
    "  sl  local_address                         remote_address                        st tx_queue "
    "rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
constexpr char kUdp6Heading[] =
    "  sl  local_address                         remote_address                        st tx_queue "
    "rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
constexpr char kUdpHeading[] =
    "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout "
    "inode ref pointer drops             \n";

constexpr Fixed kFiles[] = {
    {"arp", "IP address       HW type     Flags       HW address            Mask     Device\n"},
    {"dev",
     "Inter-|   Receive                                                |  Transmit\n"
     " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop "
     "fifo colls carrier compressed\n"
     "    lo:       0       0    0    0    0     0          0         0        0       0    0    0 "
     "   0     0       0          0\n"},
    {"if_inet6", "00000000000000000000000000000001 01 80 10 80       lo\n"},
    {"igmp", "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"},
    {"ipv6_route", ""},
    {"netlink",
     "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n"},
    {"packet", "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"},
    {"protocols", ""},
    {"raw", kTcpHeading},
    {"raw6", kTcp6Heading},
    {"route",
     "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"},
    {"snmp", ""},
};

constexpr int kStateClosed = 7;        // TCP_CLOSE
constexpr size_t kTcpLineBytes = 149;  // TMPSZ - 1, without the line's end.
constexpr size_t kUdpLineBytes = 127;
constexpr uint32_t kUnixAcceptsFlag = 0x10000;  // __SO_ACCEPTCON

using unsigned_long_long = unsigned long long;  // For printf.

// The words of an address as they lie in memory, and the port.
std::string AddressText(const InetAddress& address, bool v6) {
  std::array<uint32_t, 4> words{};
  std::memcpy(words.data(), address.bytes.data(), sizeof(words));
  if (!v6) return Format("%08X:%04X", words[3], address.port);
  return Format("%08X%08X%08X%08X:%04X", words[0], words[1], words[2], words[3], address.port);
}

std::string InetLine(InetSocket& socket, size_t index) {
  const bool v6 = socket.kind().family == AF_INET6;
  const bool tcp = socket.kind().type == SOCK_STREAM;
  const bool listening = socket.listening();
  const InetAddress local = socket.local();
  InetAddress peer = socket.connected_peer().value_or(InetAddress{});
  if (!v6 && peer.port == 0) peer = AnyAddress(AF_INET);
  std::string line =
      Format(tcp ? "%4zu: " : "%5zu: ", index) + AddressText(local, v6) + " " +
      AddressText(peer, v6) +
      Format(" %02X %08X:%08X 00:00000000 00000000 %5u %8d %llu ", socket.state_number(),
             static_cast<uint32_t>(socket.send_queue()),
             static_cast<uint32_t>(listening ? 0 : socket.receive_queue()), socket.owner_uid(), 0,
             static_cast<unsigned_long_long>(socket.number()));
  if (tcp) {
    line += listening ? "1 0000000000000000 100 0 0 10 0" : "1 0000000000000000 20 4 0 10 -1";
  } else {
    line += "2 0000000000000000 0";
  }
  if (!v6) line.resize(std::max(line.size(), tcp ? kTcpLineBytes : kUdpLineBytes), ' ');
  return line + "\n";
}

// Sockets of one family and protocol, as far as they have a name.
template <typename Visit>
size_t ForEachInet(NetworkNamespace& network, int family, int protocol, Visit visit) {
  size_t count = 0;
  for (const std::shared_ptr<InetSocket>& socket : network.ports().All()) {
    if (socket->kind().family != family || socket->kind().protocol != protocol) continue;
    if (socket->local().port == 0) continue;
    if (protocol == IPPROTO_TCP && socket->state_number() == kStateClosed) continue;
    visit(*socket, count);
    ++count;
  }
  return count;
}

TextInode::Reader InetTable(int family, int protocol, const char* heading) {
  return [=](Task& task) -> Result<std::string> {
    std::string text = heading;
    ForEachInet(*task.own_namespaces().network, family, protocol,
                [&text](InetSocket& socket, size_t index) { text += InetLine(socket, index); });
    return text;
  };
}

Result<std::string> UnixTable(Task& task) {
  std::string text = "Num       RefCount Protocol Flags    Type St Inode Path\n";
  for (const std::shared_ptr<UnixSocket>& socket :
       (*task.own_namespaces().network).unix_names().All()) {
    text += Format("0000000000000000: %08X %08X %08X %04X %02X %5llu", 2U, 0U,
                   socket->listening() ? kUnixAcceptsFlag : 0U,
                   static_cast<unsigned>(socket->kind().type), socket->state_number(),
                   static_cast<unsigned_long_long>(socket->number()));
    const SocketAddress name = socket->name()->Get();
    if (name.length > sizeof(uint16_t)) {
      text += " ";
      const std::span<const uint8_t> path = name.view().subspan(sizeof(uint16_t));
      const bool abstract = path.front() == 0;
      for (size_t i = 0; i < path.size() && (abstract || path[i] != 0); ++i) {
        text += path[i] == 0 ? '@' : static_cast<char>(path[i]);
      }
    }
    text += "\n";
  }
  return text;
}

Result<std::string> SocketCounts(Task& task) {
  const auto count = [&task](int family, int protocol) {
    return ForEachInet(*task.own_namespaces().network, family, protocol,
                       [](InetSocket&, size_t) {});
  };
  const size_t tcp = count(AF_INET, IPPROTO_TCP);
  const size_t udp = count(AF_INET, IPPROTO_UDP);
  const size_t used = (*task.own_namespaces().network).ports().All().size() +
                      (*task.own_namespaces().network).unix_names().All().size();
  return Format(
      "sockets: used %zu\nTCP: inuse %zu orphan 0 tw 0 alloc %zu mem 0\nUDP: inuse %zu mem 0\n"
      "UDPLITE: inuse 0\nRAW: inuse 0\nFRAG: inuse 0 memory 0\n",
      used, tcp, tcp, udp);
}

}  // namespace

InodeRef NewNetworkDirectory(ProcFileSystem& file_system) {
  auto directory = std::make_shared<StaticDirectory>(file_system, 0555);
  for (const Fixed& file : kFiles) {
    AddText(file_system, *directory, file.name,
            [text = file.text](Task&) -> Result<std::string> { return std::string(text); });
  }
  AddText(file_system, *directory, "tcp", InetTable(AF_INET, IPPROTO_TCP, kTcpHeading));
  AddText(file_system, *directory, "tcp6", InetTable(AF_INET6, IPPROTO_TCP, kTcp6Heading));
  AddText(file_system, *directory, "udp", InetTable(AF_INET, IPPROTO_UDP, kUdpHeading));
  AddText(file_system, *directory, "udp6", InetTable(AF_INET6, IPPROTO_UDP, kUdp6Heading));
  AddText(file_system, *directory, "unix", &UnixTable);
  AddText(file_system, *directory, "sockstat", &SocketCounts);
  return directory;
}

}  // namespace sentry
