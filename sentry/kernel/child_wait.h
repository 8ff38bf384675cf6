#pragma once

// Waiting for children (wait4(2), waitid(2)) and what a parent gets to know.

#include <cstdint>
#include <memory>

#include "platform/base/result.h"
#include "sentry/kernel/resource_limits.h"

namespace sentry {

class Task;
class ThreadGroup;

struct WaitRequest {
  enum class Which : uint8_t { kAny, kProcess, kProcessGroup };
  Which which = Which::kAny;
  int32_t id = 0;
  uint32_t options = 0;         // W*, as waitid(2): WEXITED is explicit.
  bool nonblocking_fd = false;  // P_PIDFD with O_NONBLOCK: EAGAIN instead of sleeping.
};

struct WaitResult {
  int32_t pid = 0;  // 0: nothing yet (WNOHANG).
  uint32_t uid = 0;
  int32_t status = 0;       // As wait4 reports it.
  int32_t code = 0;         // CLD_*
  int32_t code_status = 0;  // si_status
  ResourceUsage usage;
};

class ChildWait {
 public:
  // ECHILD, kRestartSys.
  static base::Result<WaitResult> Wait(Task& task, const WaitRequest& request);

  // The process is gone for good: out of the tree; its times are added to its parent's. Tree lock
  // held.
  static void ReapLocked(ThreadGroup& group);

 private:
  static base::Result<WaitResult> TryLocked(Task& task, const WaitRequest& request);
  static bool MatchesLocked(const ThreadGroup& child, const Task& task, const WaitRequest& request);
  static bool ReportLocked(ThreadGroup& child, const WaitRequest& request, WaitResult& result);
};

}  // namespace sentry
