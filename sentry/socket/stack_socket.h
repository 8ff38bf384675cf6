#pragma once

// AF_INET and AF_INET6 over the sandbox's own stack (stack_network.h): TCP, UDP, and raw ICMP.
//
// Left out: other raw protocols, the error queue, time stamps, multicast membership.

#include <memory>

#include "platform/base/result.h"
#include "sentry/socket/socket.h"

namespace sentry {

class StackNetwork;

base::Result<SocketRef> NewStackSocket(Task& task, const std::shared_ptr<StackNetwork>& network,
                                       const Socket::Kind& kind, bool nonblocking);

}  // namespace sentry
