#include "runsc-cli/main/guest_network.h"

#include <sys/socket.h>

#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "netstack/stack/stack.h"
#include "sentry/kernel/kernel.h"
#include "sentry/socket/network_namespace.h"
#include "sentry/socket/stack_network.h"

namespace runsc {
namespace {

netstack::IpAddress Address(uint8_t family, const std::array<uint8_t, 16>& bytes) {
  return family == AF_INET ? netstack::IpAddress::FromV4(bytes.data())
                           : netstack::IpAddress::FromV6(bytes.data());
}

absl::Status Refused(absl::string_view what, base::Errno error) {
  return absl::InternalError(
      absl::StrCat("the sandbox's stack does not take ", what, ": ", strerror(error.value())));
}

}  // namespace

absl::Status StartNetwork(sentry::Kernel& kernel, const NetworkConfig& config,
                          std::vector<base::Fd> links) {
  auto network = std::make_shared<sentry::StackNetwork>(kernel);
  netstack::Stack& stack = network->stack();
  for (size_t i = 0; i < config.links.size() && i < links.size(); ++i) {
    const LinkConfig& link = config.links[i];
    const auto added = network->AddLink({.name = link.name.data(),
                                         .index = link.index,
                                         .mtu = link.mtu,
                                         .mac = {link.mac},
                                         .socket = std::move(links[i])});
    if (!added.ok()) return Refused(absl::StrCat("link ", link.name.data()), added.error());
  }
  for (const AddressConfig& address : config.addresses) {
    netstack::InterfaceAddress own;
    own.prefix = {Address(address.family, address.address), address.bits};
    const auto added = stack.AddAddress(address.index, own);
    if (!added.ok()) return Refused("an address", added.error());
  }
  for (const RouteConfig& route : config.routes) {
    netstack::Route own;
    own.destination = {Address(route.family, route.destination), route.bits};
    if (route.has_gateway != 0) own.gateway = Address(route.family, route.gateway);
    if (route.has_source != 0) own.preferred_source = Address(route.family, route.source);
    own.interface_index = route.index;
    own.metric = route.metric;
    own.mtu = route.mtu;
    own.protocol = route.protocol;
    own.scope = route.scope;
    const auto added = stack.AddRoute(own);
    if (!added.ok() && added.error() != EEXIST) return Refused("a route", added.error());
  }
  for (const NeighborConfig& neighbor : config.neighbors) {
    if (netstack::Interface* interface = stack.FindInterface(neighbor.index)) {
      interface->neighbors().SetPermanent(Address(neighbor.family, neighbor.address),
                                          {neighbor.mac});
    }
  }
  const auto started = network->Start();
  if (!started.ok()) return Refused("its links", started.error());
  kernel.network().UseStack(std::move(network));
  return absl::OkStatus();
}

}  // namespace runsc
