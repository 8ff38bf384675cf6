#include "sentry/kernel/trace_access.h"

#include <linux/capability.h>

#include <memory>

#include "sentry/kernel/task.h"
#include "sentry/mm/memory_manager.h"

namespace sentry {

bool MayTrace(const Credentials& caller, const ThreadGroup* group, const Task& subject,
              TraceIds ids) {
  if (group == &subject.group()) return true;
  const CredentialsRef theirs = subject.credentials();
  if (caller.HasCapabilityIn(theirs->user_namespace, CAP_SYS_PTRACE)) return true;
  const bool of_files = ids == TraceIds::kFileSystem;
  const uint32_t uid = of_files ? caller.fsuid : caller.uid;
  const uint32_t gid = of_files ? caller.fsgid : caller.gid;
  const bool same = uid == theirs->uid && uid == theirs->euid && uid == theirs->suid &&
                    gid == theirs->gid && gid == theirs->egid && gid == theirs->sgid;
  const CapabilitySet capabilities = of_files ? caller.effective : caller.permitted;
  if (!same) return false;
  // Capabilities compare within one user namespace only.
  if (caller.user_namespace == theirs->user_namespace && (theirs->permitted & ~capabilities) != 0)
    return false;
  if (caller.user_namespace != theirs->user_namespace) return false;
  const std::shared_ptr<MemoryManager> memory = subject.memory_ref();
  return memory == nullptr || memory->dumpable().load() == 1;
}

}  // namespace sentry
