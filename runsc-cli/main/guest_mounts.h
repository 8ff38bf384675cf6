#pragma once

// The guest's tree at start-up: its root below a throw-away overlay, the file systems that every
// container has, and volumes.

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "gofer/protocol/client.h"
#include "runsc-cli/main/boot_config.h"
#include "sentry/kernel/kernel.h"

namespace sentry {
class DevPts;
class Terminal;
}  // namespace sentry

namespace runsc {

// What /dev needs beside the kernel.
struct GuestDevices {
  std::shared_ptr<sentry::DevPts> dev_pts;
  std::shared_ptr<sentry::Terminal> console;  // Null without one.
};

// Mounts everything. Directories that a root lacks are made in the overlay. The status names the
// mount that failed.
absl::Status MountGuestTree(sentry::Kernel& kernel, const std::shared_ptr<gofer::Client>& files,
                            const BootConfig& config, const GuestDevices& devices);

}  // namespace runsc
