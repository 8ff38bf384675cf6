#include "sentry/socket/network_namespace.h"

#include <utility>

#include "sentry/socket/inet_ports.h"
#include "sentry/socket/rights.h"
#include "sentry/socket/unix_socket.h"

namespace sentry {

NetworkNamespace::NetworkNamespace(UserNamespaceRef owner)
    : Namespace(NamespaceKind::kNet, std::move(owner)),
      rights_(std::make_unique<RightsInFlight>()),
      unix_names_(std::make_unique<UnixNames>()),
      ports_(std::make_unique<InetPorts>()) {}

NetworkNamespace::~NetworkNamespace() = default;

}  // namespace sentry
