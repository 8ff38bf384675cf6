#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "syscalls/abi/poll.h"
#include "syscalls/abi/time.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<uint64_t> Poll(sentry::Task& task, base::UserAddr fds, uint32_t count,
                            int32_t timeout_ms);
base::Result<uint64_t> Ppoll(sentry::Task& task, base::UserAddr fds, uint32_t count,
                             base::UserInOut<abi::Timespec> timeout,
                             base::UserIn<uint64_t> signal_mask, uint64_t mask_bytes);
base::Result<uint64_t> Select(sentry::Task& task, int32_t count, base::UserAddr in,
                              base::UserAddr out, base::UserAddr exceptional,
                              base::UserInOut<abi::Timeval> timeout);
base::Result<uint64_t> Pselect6(sentry::Task& task, int32_t count, base::UserAddr in,
                                base::UserAddr out, base::UserAddr exceptional,
                                base::UserInOut<abi::Timespec> timeout,
                                base::UserIn<abi::SignalMaskArgument> signal_mask);

}  // namespace syscalls
