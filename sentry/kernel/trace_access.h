#pragma once

// May one task look into another, or change it? ptrace(2)'s access check, which /proc,
// process_vm_readv(2), pidfd_getfd(2) and others share (Linux: __ptrace_may_access,
// cap_ptrace_access_check, 6.12).

#include "sentry/kernel/credentials.h"

namespace sentry {

class Task;
class ThreadGroup;

// Whose ids count: PTRACE_MODE_FSCREDS for accesses through files, PTRACE_MODE_REALCREDS else.
enum class TraceIds { kFileSystem, kReal };

// `group`: the caller's process, which may always look at itself; null if it is not known.
bool MayTrace(const Credentials& caller, const ThreadGroup* group, const Task& subject,
              TraceIds ids);

}  // namespace sentry
