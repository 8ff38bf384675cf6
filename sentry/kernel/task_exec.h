#pragma once

// execve(2): a task becomes another program.

#include <memory>
#include <string>

#include "platform/base/result.h"
#include "sentry/loader/loader.h"
#include "sentry/vfs/path.h"

namespace sentry {

class MemoryManager;
class Task;
struct ExecCredentials;

struct ExecRequest {
  Path executable;   // Found, not yet checked.
  std::string name;  // As execve got it: AT_EXECFN, and what a script's interpreter opens.
  bool name_is_closed = false;  // execveat of a close-on-exec descriptor.
  ProgramArguments arguments;
};

class TaskExec {
 public:
  // On success the registers are the new program's. An error leaves the caller as it was; failures
  // after the point of no return end the process with SIGSEGV, as on Linux. Own thread, or before
  // Start().
  static base::Result<void> Exec(Task& task, ExecRequest request);

 private:
  static base::Result<void> KillOtherThreads(Task& task);
  static void BecomeLeader(Task& task);
  static void ResetState(Task& task, const PreparedProgram& program);
  static void ResetRegisters(Task& task, const LoadedImage& image);
  static void LeaveOldMemory(Task& task);
  static bool MayStayInPlace(const Task& task, const ExecCredentials& credentials);
  // An address space of its own, in which the task's context is ready to run.
  static base::Result<std::shared_ptr<MemoryManager>> NewMemory(Task& task, uint64_t seed);
};

}  // namespace sentry
