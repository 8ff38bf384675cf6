#pragma once

// The interfaces and addresses of the network namespace that this process is in, by two
// rtnetlink(7) dumps over a socket that was made earlier.

#include <vector>

#include "gofer/network/protocol.h"

namespace gofer::network {

// Each interface before its addresses; at most kInterfaceEntriesMax. Empty, with a line in the log,
// if the kernel does not answer.
std::vector<InterfaceEntry> ListInterfaces(int netlink_socket);

}  // namespace gofer::network
