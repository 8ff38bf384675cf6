#include "runsc-cli/main/network_filter.h"

#include <linux/futex.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <vector>

#include "runsc-cli/main/gofer_filter.h"

namespace runsc {
namespace {

using platform::seccomp::Equals;
using platform::seccomp::Filter;
using platform::seccomp::kTrap;
using platform::seccomp::OneOf;
using platform::seccomp::Row;

using Rows = std::vector<Row>;

constexpr uint64_t kStream = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
constexpr uint64_t kDatagram = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

void AddSockets(Rows& rows) {
  rows.insert(
      rows.end(),
      {
          {SYS_socket,
           "socket",
           {OneOf(0, {AF_INET, AF_INET6}), Equals(1, kStream), OneOf(2, {0, IPPROTO_TCP})},
           "TCP"},
          {SYS_socket,
           "socket",
           {OneOf(0, {AF_INET, AF_INET6}), Equals(1, kDatagram),
            OneOf(2, {0, IPPROTO_UDP, IPPROTO_UDPLITE, IPPROTO_ICMP, IPPROTO_ICMPV6})},
           "UDP; ping's echo sockets"},
          {SYS_bind, "bind", {}, "sockets of the internet only, as there are no others"},
          {SYS_connect, "connect", {}, "sockets of the internet only, as there are no others"},
          {SYS_listen, "listen", {}, "servers in the guest"},
          {SYS_accept4, "accept4", {Equals(3, SOCK_NONBLOCK | SOCK_CLOEXEC)}, "their clients"},
          {SYS_getsockname, "getsockname", {}, "names"},
          {SYS_getpeername, "getpeername", {}, "names"},
          {SYS_getsockopt,
           "getsockopt",
           {OneOf(1, {SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP})},
           "options that gofer/network/options.cc lists"},
          {SYS_setsockopt,
           "setsockopt",
           {OneOf(1, {SOL_SOCKET, IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, IPPROTO_UDP})},
           "options that gofer/network/options.cc lists"},
          {SYS_shutdown, "shutdown", {}, "one direction of a connection"},
          {SYS_sendmsg, "sendmsg", {}, "replies to the sentry, with descriptors"},
          {SYS_recvmsg, "recvmsg", {}, "requests of the sentry"},
          {SYS_close, "close", {}, "sockets that the guest has closed"},
      });
}

void AddProcess(Rows& rows) {
  rows.insert(rows.end(),
              {
                  {SYS_write, "write", {}, "the log"},
                  {SYS_futex,
                   "futex",
                   {OneOf(1, {FUTEX_WAIT | FUTEX_PRIVATE_FLAG, FUTEX_WAKE | FUTEX_PRIVATE_FLAG})},
                   "locks"},
              });
}

}  // namespace

Filter NetworkGoferFilter() {
  Filter filter{.process = "network-gofer", .rows = {}, .otherwise = kTrap};
  AddSockets(filter.rows);
  AddProcess(filter.rows);
  AddHelperProcess(filter.rows);
  return filter;
}

}  // namespace runsc
