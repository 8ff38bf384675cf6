#pragma once

// The proc file system (proc(5)): processes as directories, the kernel's state as text.

#include <cstdint>
#include <memory>
#include <string_view>

#include "platform/base/result.h"
#include "sentry/vfs/file_system.h"

namespace sentry {

class File;
class Kernel;
class PidView;
class Task;

// proc(5), "Mount options".
struct ProcOptions {
  static constexpr int kNoAccess = 1;    // Others' directories cannot be looked into.
  static constexpr int kInvisible = 2;   // Nor be seen.
  static constexpr int kPtraceable = 4;  // The same by the rule of ptrace alone.
  int hide = 0;
  uint32_t exempt_group = 0;
  bool only_processes = false;  // subset=pid
};

// `kernel` outlives it.
// `view`: the PID namespace whose ids it shows.
FileSystemRef NewProc(Kernel& kernel, std::shared_ptr<PidView> view = nullptr,
                      const ProcOptions& options = {});
// hidepid=, gid=, subset=. EINVAL.
base::Result<ProcOptions> ParseProcOptions(std::string_view text);

// The task whose directory below /proc `file` is, which serves as a pidfd (pidfd_send_signal(2)).
// Null if it is none, or gone.
std::shared_ptr<Task> TaskOfProcDirectory(const File& file);

}  // namespace sentry
