#include "runsc-cli/main/network_filter.h"

#include <linux/futex.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <vector>

namespace runsc {
namespace {

using platform::seccomp::Equals;
using platform::seccomp::Fail;
using platform::seccomp::Filter;
using platform::seccomp::kTrap;
using platform::seccomp::OneOf;
using platform::seccomp::Only;
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
  rows.insert(
      rows.end(),
      {
          {SYS_write, "write", {}, "the log"},
          {SYS_futex,
           "futex",
           {OneOf(1, {FUTEX_WAIT | FUTEX_PRIVATE_FLAG, FUTEX_WAKE | FUTEX_PRIVATE_FLAG})},
           "locks"},
          {SYS_brk, "brk", {}, "heap"},
          {SYS_mmap, "mmap", {Only(2, PROT_READ | PROT_WRITE)}, "heap; never executable"},
          {SYS_munmap, "munmap", {}, "heap"},
          {SYS_mremap, "mremap", {}, "realloc of large blocks copies instead", Fail(ENOSYS)},
          {SYS_clock_gettime,
           "clock_gettime",
           {},
           "time stamps in the log where the vDSO has no clock"},
          {SYS_exit_group, "exit_group", {}, "the end"},
          {SYS_restart_syscall, "restart_syscall", {}, "the kernel's, after SIGSTOP and SIGCONT"},
      });
}

}  // namespace

Filter NetworkGoferFilter() {
  Filter filter{.process = "network gofer", .rows = {}, .otherwise = kTrap};
  AddSockets(filter.rows);
  AddProcess(filter.rows);
  return filter;
}

}  // namespace runsc
