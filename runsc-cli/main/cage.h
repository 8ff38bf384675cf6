#pragma once

// Starting a process inside its cage: namespaces, an empty root, no privileges, and only the
// descriptors it was given. All of it is in force before the first instruction of the program that
// is started.
//
// runsc opens the program, clone(2)s with all namespaces at once, and the child arranges itself and
// executes the program by descriptor, because by then no path leads anywhere.

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "platform/base/fd.h"

namespace runsc {

struct CageSpec {
  std::string name;      // argv[0] and error messages: "runsc-sentry"
  int program_fd = -1;   // Open for execution.
  std::vector<int> fds;  // Become 3, 4, ... in this order (-1: left out); 0, 1, 2 stay.
  // Where the steps until its program starts are noted, as those of `timing_name`.
  int timing_fd = -1;
  const char* timing_name = "";
  // Open at this number: the process's own /proc/self/fd, cut out of /proc. -1: not wanted.
  int own_fds_directory_at = -1;
  bool own_user_namespace = true;
  bool own_network_namespace = true;  // Else the one of the process that starts it.
  // A process (by pidfd) whose network, IPC and UTS namespaces this one shares, in place of
  // making more of them. Takes CAP_SYS_ADMIN, so only without an own user namespace.
  int share_namespaces_of = -1;
  uint32_t inside_uid = 65534;  // With a user namespace: the only ids that exist in it ...
  uint32_t inside_gid = 65534;
  uint32_t outside_uid = 65534;  // ... and what they stand for outside.
  uint32_t outside_gid = 65534;
  uint64_t kept_capabilities = 0;  // Bits of CAP_*; without a user namespace only.
};

struct Caged {
  pid_t pid = -1;
  base::Fd pid_fd;      // Readable once the process has ended.
  base::Fd exec_error;  // Ends without data when the program has been started; see TakeStartError.
};

// Returns once the process exists and its ids are mapped; it may still fail before it executes its
// program.
absl::StatusOr<Caged> StartCaged(const CageSpec& spec);

// After exec_error became readable: OK, or what went wrong in the child, in a sentence.
absl::Status TakeStartError(const CageSpec& spec, Caged& child);

// Whether this process may make namespaces without a new user namespace (host root, or root of a
// container that was given CAP_SYS_ADMIN).
bool MayMakeNamespaces();

}  // namespace runsc
