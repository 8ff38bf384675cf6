#pragma once

// What sockets share: the names they are bound to (abstract unix names, socket files, ports) and
// what is in flight between them. One for the sandbox, and one for each that guests make: with a
// loopback of its own and nothing else. Descriptors in flight are counted in the sandbox's.

#include <memory>

#include "sentry/kernel/namespace.h"
#include "sentry/socket/interfaces.h"

namespace gofer::network {
class Client;
}

namespace sentry {

class InetPorts;
class RightsInFlight;
class StackNetwork;
class UnixNames;

class NetworkNamespace final : public Namespace {
 public:
  explicit NetworkNamespace(UserNamespaceRef owner = nullptr);
  ~NetworkNamespace() override;

  UnixNames& unix_names() { return *unix_names_; }
  InetPorts& ports() { return *ports_; }
  RightsInFlight& rights() { return *rights_; }
  InterfaceTable& interfaces() { return interfaces_; }

  // --network=host: internet sockets are the host's from now on, and so are the interfaces. Before
  // the first process.
  void UseHost(std::shared_ptr<gofer::network::Client> host);
  // Null: the sandbox's own loopback.
  const std::shared_ptr<gofer::network::Client>& host() const { return host_; }

  // --network=sandbox: internet sockets are those of a stack of our own. Before the first process.
  void UseStack(std::shared_ptr<StackNetwork> stack);
  const std::shared_ptr<StackNetwork>& stack() const { return stack_; }

 private:
  std::unique_ptr<RightsInFlight> rights_;
  std::unique_ptr<UnixNames> unix_names_;
  std::unique_ptr<InetPorts> ports_;
  InterfaceTable interfaces_;
  std::shared_ptr<gofer::network::Client> host_;
  std::shared_ptr<StackNetwork> stack_;
};

}  // namespace sentry
