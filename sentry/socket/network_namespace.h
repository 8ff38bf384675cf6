#pragma once

// What sockets share: the names they are bound to (abstract unix names, socket files, ports) and
// what is in flight between them. One per sandbox.

#include <memory>

namespace sentry {

class InetPorts;
class RightsInFlight;
class UnixNames;

class NetworkNamespace {
 public:
  NetworkNamespace();
  ~NetworkNamespace();
  NetworkNamespace(const NetworkNamespace&) = delete;
  NetworkNamespace& operator=(const NetworkNamespace&) = delete;

  UnixNames& unix_names() { return *unix_names_; }
  InetPorts& ports() { return *ports_; }
  RightsInFlight& rights() { return *rights_; }

 private:
  std::unique_ptr<RightsInFlight> rights_;
  std::unique_ptr<UnixNames> unix_names_;
  std::unique_ptr<InetPorts> ports_;
};

}  // namespace sentry
