#pragma once

// A session behind a channel: the gofer's main loop.
//
// One thread, one request at a time. Nothing that a request asks for waits for another party (see
// session_open.cc), so one client thread can delay another by a host file operation, no more.

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gofer/protocol/channel.h"
#include "gofer/protocol/wire.h"
#include "gofer/server/session.h"
#include "platform/base/fd.h"

namespace gofer {

class Server {
 public:
  struct Options {
    base::Fd memory;  // ChannelEnds::memory
    base::Fd socket;  // ChannelEnds::server_socket
    std::vector<AttachPoint> attach_points;
    base::Fd proc_self_fd;                 // host::OpenProcSelfFd()
    bool foreign_owners_are_root = false;  // See Session::Options.
  };

  // Fails with an explanation if RLIMIT_NOFILE leaves too little to work with.
  static absl::StatusOr<std::unique_ptr<Server>> Create(Options options);

  // Serves until the client closes its end (OK) or breaks the protocol (the reason, logged too).
  absl::Status Run();

  void set_spin_ns(uint32_t spin_ns) { channel_.set_spin_ns(spin_ns); }

 private:
  Server(Channel channel, Session::Options options)
      : channel_(std::move(channel)), session_(std::move(options)) {}
  absl::Status Serve(size_t slot);

  Channel channel_;
  Session session_;
  WireBuffer arrived_{kMessageBytesMax};
  WireBuffer scratch_{kMessageBytesMax};
};

}  // namespace gofer
