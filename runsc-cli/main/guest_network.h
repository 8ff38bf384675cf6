#pragma once

// The sentry's stack as NetworkConfig describes it.

#include <vector>

#include "absl/status/status.h"
#include "platform/base/fd.h"
#include "runsc-cli/main/network_config.h"

namespace sentry {
class Kernel;
}

namespace runsc {

// `links` in the order of config.links. Starts a thread for each.
absl::Status StartNetwork(sentry::Kernel& kernel, const NetworkConfig& config,
                          std::vector<base::Fd> links);

}  // namespace runsc
