#pragma once

// Processes: birth, programs, end, family, ids.

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> GetPid(sentry::Task& task);
base::Result<int32_t> GetTid(sentry::Task& task);
base::Result<int32_t> GetPpid(sentry::Task& task);
base::Result<int32_t> GetPgrp(sentry::Task& task);
base::Result<int32_t> GetPgid(sentry::Task& task, int32_t pid);
base::Result<int32_t> GetSid(sentry::Task& task, int32_t pid);
base::Result<void> SetPgid(sentry::Task& task, int32_t pid, int32_t pgid);
base::Result<int32_t> SetSid(sentry::Task& task);

base::Result<int32_t> Fork(sentry::Task& task);
base::Result<int32_t> Vfork(sentry::Task& task);
base::Result<int32_t> Clone(sentry::Task& task, uint64_t flags, uint64_t stack, uint64_t parent_tid,
                            uint64_t child_tid, uint64_t tls);
base::Result<int32_t> Clone3(sentry::Task& task, base::UserAddr arguments, uint64_t size);
base::Result<void> Setns(sentry::Task& task, int32_t fd, int32_t type);
base::Result<void> Unshare(sentry::Task& task, uint64_t flags);
base::Result<void> Execve(sentry::Task& task, base::UserAddr path, base::UserAddr argv,
                          base::UserAddr envp);
base::Result<void> Execveat(sentry::Task& task, int32_t directory, base::UserAddr path,
                            base::UserAddr argv, base::UserAddr envp, int32_t flags);
base::Result<void> Exit(sentry::Task& task, int32_t status);
base::Result<void> ExitGroup(sentry::Task& task, int32_t status);
base::Result<int32_t> Wait4(sentry::Task& task, int32_t pid, base::UserAddr status, int32_t options,
                            base::UserAddr usage);
base::Result<int32_t> WaitId(sentry::Task& task, int32_t which, int32_t id, base::UserAddr info,
                             int32_t options, base::UserAddr usage);

base::Result<int32_t> PidfdOpen(sentry::Task& task, int32_t pid, uint32_t flags);
base::Result<void> PidfdSendSignal(sentry::Task& task, int32_t pidfd, int32_t signal,
                                   base::UserAddr info, uint32_t flags);
base::Result<int32_t> PidfdGetfd(sentry::Task& task, int32_t pidfd, int32_t fd, uint32_t flags);

base::Result<int32_t> SetTidAddress(sentry::Task& task, uint64_t address);
base::Result<uint32_t> Personality(sentry::Task& task, uint32_t persona);
base::Result<uint64_t> ArchPrctl(sentry::Task& task, int32_t code, uint64_t address);

}  // namespace syscalls
