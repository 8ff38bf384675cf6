#pragma once

// A gofer for a program that measures its clients.

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "gofer/protocol/channel.h"
#include "gofer/server/host.h"
#include "gofer/server/server.h"

namespace bench {

// In a fork of the caller: serves `path` as "root" until the client has gone.
[[noreturn]] inline void ServeGofer(gofer::ChannelEnds ends, const std::string& path,
                                    bool read_only) {
  ends.client_socket.Reset();
  gofer::Server::Options options;
  options.memory = std::move(ends.memory);
  options.socket = std::move(ends.server_socket);
  gofer::AttachPoint point;
  point.name = "root";
  point.read_only = read_only;
  point.root_path_fd = base::Fd(open(path.c_str(), O_PATH | O_CLOEXEC));
  options.attach_points.push_back(std::move(point));
  auto proc = gofer::host::OpenProcSelfFd();
  if (!proc.ok()) abort();
  options.proc_self_fd = *std::move(proc);
  auto server = gofer::Server::Create(std::move(options));
  if (!server.ok()) abort();
  _exit((*server)->Run().ok() ? 0 : 1);
}

}  // namespace bench
