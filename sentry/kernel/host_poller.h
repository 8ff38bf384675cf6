#pragma once

// Readiness of host descriptors (stdio, later packet sockets) turned into WaitQueue events: one
// host thread in epoll_wait, edge triggered.

#include <memory>

#include "platform/base/result.h"
#include "sentry/kernel/wait_queue.h"

namespace sentry {

class HostPoller {
 public:
  virtual ~HostPoller() = default;
  // From now on events of `host_fd` notify `queue`. EPERM for descriptors that epoll refuses
  // (regular files). Both outlive the registration.
  virtual base::Result<void> Add(int host_fd, WaitQueue& queue) = 0;
  virtual void Remove(int host_fd) = 0;
  // poll(2) with no time-out.
  static PollMask Ready(int host_fd, PollMask interest);
};

base::Result<std::unique_ptr<HostPoller>> NewHostPoller();

}  // namespace sentry
