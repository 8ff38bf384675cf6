// /proc/net: the loopback interface, and the tables' headings. Sockets are listed by the network
// stack's owners.

#include "sentry/fs/proc/proc_internal.h"

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
    {"sockstat", "sockets: used 0\n"},
    {"tcp", kTcpHeading},
    {"tcp6", kTcp6Heading},
    {"udp", kUdpHeading},
    {"udp6", kTcp6Heading},
    {"unix", "Num       RefCount Protocol Flags    Type St Inode Path\n"},
};

}  // namespace

InodeRef NewNetworkDirectory(ProcFileSystem& file_system) {
  auto directory = std::make_shared<StaticDirectory>(file_system, 0555);
  for (const Fixed& file : kFiles) {
    AddText(file_system, *directory, file.name,
            [text = file.text](Task&) -> Result<std::string> { return std::string(text); });
  }
  return directory;
}

}  // namespace sentry
