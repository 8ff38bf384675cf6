#pragma once

// What sockets share: the names they are bound to (abstract unix names, socket files, ports) and
// what is in flight between them. One for the sandbox, and one for each that guests make: with a
// loopback of its own and nothing else. Descriptors in flight are counted in the sandbox's.

#include <memory>

#include "sentry/kernel/namespace.h"

namespace sentry {

class InetPorts;
class RightsInFlight;
class UnixNames;

class NetworkNamespace final : public Namespace {
 public:
  explicit NetworkNamespace(UserNamespaceRef owner = nullptr);
  ~NetworkNamespace() override;

  UnixNames& unix_names() { return *unix_names_; }
  InetPorts& ports() { return *ports_; }
  RightsInFlight& rights() { return *rights_; }

 private:
  std::unique_ptr<RightsInFlight> rights_;
  std::unique_ptr<UnixNames> unix_names_;
  std::unique_ptr<InetPorts> ports_;
};

}  // namespace sentry
