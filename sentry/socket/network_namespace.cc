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
  interfaces_.Set(stack_->Interfaces());
}

void NetworkNamespace::UseHost(std::shared_ptr<gofer::network::Client> host) {
  host_ = std::move(host);
  InterfaceList list;
  for (const gofer::network::InterfaceEntry& entry : host_->Interfaces()) {
    const auto index = static_cast<int32_t>(entry.index);
    const bool known = FindInterface(list, index) != nullptr;
    if (!known) {
      list.emplace_back();
      list.back().index = index;
      list.back().name = entry.name.data();
      list.back().flags = entry.flags;
    }
    Interface& interface = *std::find_if(
        list.begin(), list.end(), [&](const Interface& each) { return each.index == index; });
    if (entry.family == 0) {
      interface.mtu = entry.mtu;
      interface.hardware_type = entry.hardware_type;
      interface.hardware_address = entry.hardware_address;
    } else {
      interface.addresses.push_back(
          {entry.family, entry.address, entry.prefix_length, entry.scope});
    }
  }
  interfaces_.Set(std::move(list));
}

}  // namespace sentry
