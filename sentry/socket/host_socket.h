#pragma once

// AF_INET and AF_INET6 with --network=host: each socket of the guest is one of the host's, made by
// the network gofer (gofer/network). Bytes go straight between guest memory and the host; names and
// options are asked for.
//
// Left out: raw sockets, SCM_TIMESTAMPING, MSG_ZEROCOPY, changes of the host's interfaces after the
// start.

#include <memory>

#include "platform/base/result.h"
#include "sentry/socket/socket.h"

namespace gofer::network {
class Client;
}

namespace sentry {

base::Result<SocketRef> NewHostSocket(Task& task,
                                      const std::shared_ptr<gofer::network::Client>& network,
                                      const Socket::Kind& kind, bool nonblocking);

}  // namespace sentry
