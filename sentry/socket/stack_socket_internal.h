#pragma once

// What the kinds of sockets over the stack share.

#include <memory>

#include "netstack/stack/stack.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/socket/inet_socket.h"
#include "sentry/socket/stack_network.h"

namespace sentry {

inline netstack::IpAddress ToStack(const InetAddress& address) { return {address.bytes}; }
inline InetAddress FromStack(const netstack::IpAddress& address, uint16_t port) {
  InetAddress result;
  result.bytes = address.bytes;
  result.port = port;
  return result;
}

// The names of an InetSocket, judged by the stack.
class StackInetSocket : public InetSocket {
 public:
  StackInetSocket(Kernel& kernel, std::shared_ptr<StackNetwork> network, const Kind& kind,
                  bool nonblocking, CredentialsRef credentials)
      : InetSocket(kernel, kind, nonblocking, std::move(credentials)),
        network_(std::move(network)) {}

 protected:
  bool IsOwnAddress(const InetAddress& address) const override {
    return network_->stack().IsLocal(ToStack(address));
  }
  base::Result<void> CheckReachable(const InetAddress& to) const override {
    TRY(network_->stack().FindPath(ToStack(to), netstack::IpAddress::Any(to.is_v4())));
    return {};
  }
  base::Result<InetAddress> SourceFor(const InetAddress& peer) const override {
    const netstack::Path path =
        TRY(network_->stack().FindPath(ToStack(peer), netstack::IpAddress::Any(peer.is_v4())));
    return FromStack(path.source, 0);
  }
  netstack::Stack& stack() const { return network_->stack(); }

  const std::shared_ptr<StackNetwork> network_;
};

base::Result<SocketRef> NewStackDatagramSocket(Task& task, std::shared_ptr<StackNetwork> network,
                                               const Socket::Kind& kind, bool nonblocking);
base::Result<SocketRef> NewStackRawSocket(Task& task, std::shared_ptr<StackNetwork> network,
                                          const Socket::Kind& kind, bool nonblocking);

}  // namespace sentry
