#pragma once

// Address spaces: mmap(2), brk(2), madvise(2), mlock(2), membarrier(2), NUMA policy, protection
// keys, process_vm_readv(2).

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<uint64_t> Mmap(sentry::Task& task, uint64_t address, uint64_t length,
                            uint64_t protection, uint64_t flags, uint64_t fd, uint64_t offset);
base::Result<void> RemapFilePages(sentry::Task& task, uint64_t start, uint64_t size,
                                  uint64_t protection, uint64_t page_offset, uint64_t flags);
base::Result<void> Munmap(sentry::Task& task, uint64_t address, uint64_t length);
base::Result<void> Mprotect(sentry::Task& task, uint64_t address, uint64_t length,
                            uint64_t protection);
base::Result<uint64_t> Mremap(sentry::Task& task, uint64_t address, uint64_t old_length,
                              uint64_t new_length, uint64_t flags, uint64_t new_address);
base::Result<uint64_t> Brk(sentry::Task& task, uint64_t address);
base::Result<void> Madvise(sentry::Task& task, uint64_t address, uint64_t length, int32_t advice);
base::Result<uint64_t> ProcessMadvise(sentry::Task& task, int32_t pidfd, base::UserAddr vector,
                                      uint64_t count, int32_t advice, uint32_t flags);
base::Result<void> Msync(sentry::Task& task, uint64_t address, uint64_t length, int32_t flags);
base::Result<void> Mlock(sentry::Task& task, uint64_t address, uint64_t length);
base::Result<void> Mlock2(sentry::Task& task, uint64_t address, uint64_t length, int32_t flags);
base::Result<void> Munlock(sentry::Task& task, uint64_t address, uint64_t length);
base::Result<void> MlockAll(sentry::Task& task, int32_t flags);
base::Result<void> MunlockAll(sentry::Task& task);
base::Result<void> Mincore(sentry::Task& task, uint64_t address, uint64_t length,
                           base::UserAddr residency);
base::Result<uint64_t> Membarrier(sentry::Task& task, int32_t command, uint32_t flags, int32_t cpu);

base::Result<void> GetMempolicy(sentry::Task& task, base::UserAddr mode, base::UserAddr mask,
                                uint64_t nodes_max, uint64_t address, uint64_t flags);
base::Result<void> SetMempolicy(sentry::Task& task, int32_t mode, base::UserAddr mask,
                                uint64_t nodes_max);
base::Result<void> Mbind(sentry::Task& task, uint64_t address, uint64_t length, uint64_t mode,
                         base::UserAddr mask, uint64_t nodes_max, uint32_t flags);

base::Result<void> PkeyMprotect(sentry::Task& task, uint64_t address, uint64_t length,
                                uint64_t protection, int32_t key);
base::Result<uint64_t> PkeyAlloc(sentry::Task& task, uint64_t flags, uint64_t rights);
base::Result<void> PkeyFree(sentry::Task& task, int32_t key);

base::Result<uint64_t> ProcessVmReadv(sentry::Task& task, int32_t pid, base::UserAddr local,
                                      uint64_t local_count, base::UserAddr remote,
                                      uint64_t remote_count, uint64_t flags);
base::Result<uint64_t> ProcessVmWritev(sentry::Task& task, int32_t pid, base::UserAddr local,
                                       uint64_t local_count, base::UserAddr remote,
                                       uint64_t remote_count, uint64_t flags);

}  // namespace syscalls
