#pragma once

#include <array>
#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "syscalls/abi/futex.h"
#include "syscalls/abi/time.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<uint64_t> Futex(sentry::Task& task, base::UserAddr addr, int32_t operation,
                             uint32_t value, uint64_t timeout_or_count, base::UserAddr addr2,
                             uint32_t value3);
base::Result<uint64_t> FutexWaitv(sentry::Task& task, base::UserAddr waiters, uint32_t count,
                                  uint32_t flags, base::UserIn<abi::Timespec> timeout,
                                  int32_t clock_id);
base::Result<uint64_t> FutexWake(sentry::Task& task, base::UserAddr addr, uint64_t mask,
                                 int32_t count, uint32_t flags);
base::Result<void> FutexWait(sentry::Task& task, base::UserAddr addr, uint64_t value, uint64_t mask,
                             uint32_t flags, base::UserIn<abi::Timespec> timeout, int32_t clock_id);
base::Result<uint64_t> FutexRequeue(sentry::Task& task,
                                    base::UserIn<std::array<abi::FutexWaitv, 2>> waiters,
                                    uint32_t flags, int32_t wake_count, int32_t requeue_count);
base::Result<void> SetRobustList(sentry::Task& task, base::UserAddr head, uint64_t bytes);
base::Result<void> GetRobustList(sentry::Task& task, int32_t tid, base::UserOut<uint64_t> head,
                                 base::UserOut<uint64_t> bytes);

}  // namespace syscalls
