#pragma once

// The network gofer: makes and names sockets of the host's network for one sentry. IPv4 and IPv6,
// streams and datagrams (ping's included) only; what a request may ask for is checked here, and
// once more by the seccomp filter.

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "gofer/network/protocol.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace gofer::network {

class Server {
 public:
  // `socket`: the other end is the client's. Looks at the host's interfaces, for which it needs
  // more of the host than a filter has to allow: call before that.
  explicit Server(base::Fd socket);

  // Until the client has gone (OK) or says what is no request.
  absl::Status Run();

 private:
  struct Answer {
    int32_t value = 0;
    std::vector<uint8_t> data;
    int fd = -1;  // Borrowed: handed over with the reply.
  };
  base::Result<Answer> Perform(const Request& request);
  base::Result<Answer> MakeSocket(const Request& request);
  base::Result<Answer> Accept(int fd);
  base::Result<Answer> GetOption(int fd, const Request& request);
  base::Result<Answer> SetOption(int fd, const Request& request);
  base::Result<Answer> Remember(base::Fd fd);

  const base::Fd socket_;
  const std::vector<InterfaceEntry> interfaces_;
  absl::flat_hash_map<uint32_t, base::Fd> sockets_;
  uint32_t next_handle_ = 1;
};

}  // namespace gofer::network
