// seccomp(2). Listeners (SECCOMP_FILTER_FLAG_NEW_LISTENER) are unknown, as before Linux 5.0.

#include "syscalls/handlers/seccomp.h"

#include <linux/capability.h>
#include <linux/seccomp.h>

#include <utility>
#include <vector>

#include "sentry/kernel/credentials.h"
#include "sentry/kernel/seccomp.h"
#include "sentry/kernel/task.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using sentry::BpfInstruction;
using sentry::Seccomp;
using sentry::Task;

namespace {

constexpr uint32_t kThreadSyncEsrch = 16;  // SECCOMP_FILTER_FLAG_TSYNC_ESRCH, Linux 5.7.
constexpr uint32_t kKnownFlags = SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG |
                                 SECCOMP_FILTER_FLAG_SPEC_ALLOW | kThreadSyncEsrch;

// struct sock_fprog.
struct Program {
  uint16_t length;
  uint16_t pad[3];
  uint64_t instructions;
};
static_assert(sizeof(Program) == 16);

Result<uint64_t> SetFilter(Task& task, uint32_t flags, UserAddr argument) {
  if ((flags & ~kKnownFlags) != 0) return Errno(EINVAL);
  const Program program = TRY(task.CopyIn(UserIn<Program>(argument)));
  if (program.length == 0 || program.length > sentry::kBpfInstructionsMax) return Errno(EINVAL);
  // Else a filter could make a set-user-ID program misbehave.
  const sentry::Credentials& own = task.own_credentials();
  if (!own.no_new_privileges && !own.HasOwnCapability(CAP_SYS_ADMIN)) return Errno(EACCES);
  std::vector<BpfInstruction> instructions = TRY(
      task.memory().CopyInArray<BpfInstruction>(UserAddr(program.instructions), program.length));
  const int32_t refused = TRY(
      Seccomp::AddFilter(task, std::move(instructions), (flags & SECCOMP_FILTER_FLAG_TSYNC) != 0));
  if (refused != 0 && (flags & kThreadSyncEsrch) != 0) return Errno(ESRCH);
  return static_cast<uint64_t>(refused);
}

Result<uint64_t> ActionIsAvailable(Task& task, UserAddr argument) {
  switch (TRY(task.CopyIn(UserIn<uint32_t>(argument)))) {
    case SECCOMP_RET_KILL_PROCESS:
    case SECCOMP_RET_KILL_THREAD:
    case SECCOMP_RET_TRAP:
    case SECCOMP_RET_ERRNO:
    case SECCOMP_RET_TRACE:
    case SECCOMP_RET_LOG:
    case SECCOMP_RET_ALLOW:
      return uint64_t{0};
    default:
      return Errno(EOPNOTSUPP);
  }
}

}  // namespace

Result<uint64_t> SeccompCall(Task& task, uint32_t operation, uint32_t flags, UserAddr argument) {
  switch (operation) {
    case SECCOMP_SET_MODE_STRICT:
      if (flags != 0 || !argument.is_null()) return Errno(EINVAL);
      TRY(Seccomp::EnterStrictMode(task));
      return uint64_t{0};
    case SECCOMP_SET_MODE_FILTER:
      return SetFilter(task, flags, argument);
    case SECCOMP_GET_ACTION_AVAIL:
      if (flags != 0) return Errno(EINVAL);
      return ActionIsAvailable(task, argument);
    default:
      return Errno(EINVAL);
  }
}

Result<uint64_t> SetSeccomp(Task& task, uint64_t mode, UserAddr program) {
  switch (mode) {
    case SECCOMP_MODE_STRICT:
      TRY(Seccomp::EnterStrictMode(task));
      return uint64_t{0};
    case SECCOMP_MODE_FILTER:
      return SetFilter(task, 0, program);
    default:
      return Errno(EINVAL);
  }
}

}  // namespace syscalls
