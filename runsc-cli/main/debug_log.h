#pragma once

// --debug-log DIR: one file per process, made before anything is started, so that a process needs
// no path for it. What cannot be written later (a full disk) is lost and stops nobody; see
// platform/base/log.h.

#include <string>

#include "absl/status/statusor.h"
#include "platform/base/fd.h"

namespace runsc {

struct DebugLogs {
  // DIR/runsc.log.TIME.runsc.txt and so on; empty without --debug-log.
  base::Fd runsc;
  base::Fd sentry;
  base::Fd gofer;
  base::Fd network;
  std::string sentry_path;
  std::string gofer_path;
  std::string network_path;
};

// `directory` is made if it is missing; empty: no logs. `network`: there is a network gofer.
absl::StatusOr<DebugLogs> OpenDebugLogs(const std::string& directory, bool network);

}  // namespace runsc
