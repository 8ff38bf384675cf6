#pragma once

// Signals (signal(7)).

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "sentry/kernel/task.h"

namespace syscalls {

base::Result<void> RtSigaction(sentry::Task& task, int32_t signal, base::UserAddr action,
                               base::UserAddr old_action, uint64_t set_bytes);
base::Result<void> RtSigprocmask(sentry::Task& task, int32_t how, base::UserAddr set,
                                 base::UserAddr old_set, uint64_t set_bytes);
base::Result<void> RtSigreturn(sentry::Task& task);
base::Result<void> RtSigpending(sentry::Task& task, base::UserAddr set, uint64_t set_bytes);
base::Result<int32_t> RtSigtimedwait(sentry::Task& task, base::UserAddr set, base::UserAddr info,
                                     base::UserAddr timeout, uint64_t set_bytes);
base::Result<void> RtSigsuspend(sentry::Task& task, base::UserAddr set, uint64_t set_bytes);
base::Result<void> Pause(sentry::Task& task);
base::Result<void> Sigaltstack(sentry::Task& task, base::UserAddr stack, base::UserAddr old_stack);
base::Result<void> Kill(sentry::Task& task, int32_t pid, int32_t signal);
base::Result<void> Tkill(sentry::Task& task, int32_t tid, int32_t signal);
base::Result<void> Tgkill(sentry::Task& task, int32_t tgid, int32_t tid, int32_t signal);
base::Result<void> RtSigqueueinfo(sentry::Task& task, int32_t pid, int32_t signal,
                                  base::UserAddr info);
base::Result<void> RtTgsigqueueinfo(sentry::Task& task, int32_t tgid, int32_t tid, int32_t signal,
                                    base::UserAddr info);
base::Result<uint64_t> RestartSyscall(sentry::Task& task);

// pidfd_send_signal(2): to a thread, else to the process or its process group. `info` may be null.
base::Result<void> SendFromPidfd(sentry::Task& task, sentry::ThreadGroup& group,
                                 const sentry::TaskRef& thread, bool to_process_group,
                                 int32_t signal, base::UserAddr info);

}  // namespace syscalls
