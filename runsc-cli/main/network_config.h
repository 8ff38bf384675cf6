#pragma once

// What the sentry's own stack is to be when it starts: links (whose descriptors follow kFirstLinkFd
// in this order), addresses, routes, neighbours. Plain data, part of BootConfig.

#include <array>
#include <cstdint>
#include <vector>

namespace runsc {

struct LinkConfig {
  std::array<char, 16> name = {};  // Ends with a zero.
  int32_t index = 0;
  uint32_t mtu = 0;
  std::array<uint8_t, 6> mac = {};
  std::array<uint8_t, 2> pad = {};
};

// IPv4 in the first four bytes.
struct AddressConfig {
  int32_t index = 0;
  uint8_t family = 0;  // AF_INET, AF_INET6
  uint8_t bits = 0;
  std::array<uint8_t, 16> address = {};
  std::array<uint8_t, 2> pad = {};
};

struct RouteConfig {
  int32_t index = 0;
  uint32_t metric = 0;
  uint32_t mtu = 0;
  uint8_t family = 0;
  uint8_t bits = 0;
  uint8_t scope = 0;
  uint8_t protocol = 0;
  uint8_t has_gateway = 0;
  uint8_t has_source = 0;
  std::array<uint8_t, 2> pad = {};
  std::array<uint8_t, 16> destination = {};
  std::array<uint8_t, 16> gateway = {};
  std::array<uint8_t, 16> source = {};
};

struct NeighborConfig {  // Permanent ones.
  int32_t index = 0;
  uint8_t family = 0;
  std::array<uint8_t, 3> pad = {};
  std::array<uint8_t, 16> address = {};
  std::array<uint8_t, 6> mac = {};
  std::array<uint8_t, 2> pad2 = {};
};

struct NetworkConfig {
  bool own_stack = false;  // --network=sandbox
  std::vector<LinkConfig> links;
  std::vector<AddressConfig> addresses;
  std::vector<RouteConfig> routes;
  std::vector<NeighborConfig> neighbors;
};

}  // namespace runsc
