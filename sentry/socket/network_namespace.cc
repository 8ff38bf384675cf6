#include "sentry/socket/network_namespace.h"

#include <algorithm>
#include <string>
#include <utility>

#include "gofer/network/client.h"
#include "sentry/socket/inet_ports.h"
#include "sentry/socket/rights.h"
#include "sentry/socket/stack_network.h"
#include "sentry/socket/unix_socket.h"

namespace sentry {

NetworkNamespace::NetworkNamespace(UserNamespaceRef owner)
    : Namespace(NamespaceKind::kNet, std::move(owner)),
      rights_(std::make_unique<RightsInFlight>()),
      unix_names_(std::make_unique<UnixNames>()),
      ports_(std::make_unique<InetPorts>()) {}

NetworkNamespace::~NetworkNamespace() = default;

void NetworkNamespace::UseStack(std::shared_ptr<StackNetwork> stack) {
  stack_ = std::move(stack);
  interfaces_.Follow([stack = stack_] { return stack->Interfaces(); });
}

namespace {

InterfaceList InterfacesOf(gofer::network::Client& host) {
  InterfaceList list;
  for (const gofer::network::InterfaceEntry& entry : host.Interfaces()) {
    const auto index = static_cast<int32_t>(entry.index);
    auto found = std::find_if(list.begin(), list.end(),
                              [&](const Interface& each) { return each.index == index; });
    if (entry.family == 0) {
      if (found != list.end()) continue;
      Interface interface;
      interface.index = index;
      interface.name = entry.name.data();
      interface.flags = entry.flags;
      interface.mtu = entry.mtu;
      interface.hardware_type = entry.hardware_type;
      interface.hardware_address = entry.hardware_address;
      list.push_back(std::move(interface));
    } else if (found != list.end()) {
      found->addresses.push_back({entry.family, entry.address, entry.prefix_length, entry.scope});
    }
  }
  return list;
}

}  // namespace

void NetworkNamespace::UseHost(std::shared_ptr<gofer::network::Client> host) {
  host_ = std::move(host);
  interfaces_.Follow([client = host_] { return InterfacesOf(*client); });
}

}  // namespace sentry
