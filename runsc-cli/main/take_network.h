#pragma once

// Takes the interfaces of a network namespace over for a sandbox: reads what they are (addresses,
// routes, neighbours, MTU), opens a packet socket on each, then takes the addresses away from the
// host, so that its own stack answers nothing there.

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "platform/base/fd.h"
#include "runsc-cli/main/network_config.h"

namespace runsc {

struct TakenNetwork {
  NetworkConfig config;
  std::vector<base::Fd> links;  // In the order of config.links.
};

// `path`: a namespace (/var/run/netns/NAME, /proc/PID/ns/net). Needs CAP_SYS_ADMIN, and
// CAP_NET_ADMIN and CAP_NET_RAW there. The caller must have one thread: it enters the namespace,
// and returns.
absl::Status TakeNetwork(const std::string& path, TakenNetwork& network);

}  // namespace runsc
