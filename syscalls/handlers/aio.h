#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> IoSetup(sentry::Task& task, uint32_t events, base::UserAddr context);
base::Result<void> IoDestroy(sentry::Task& task, uint64_t context);
base::Result<uint64_t> IoSubmit(sentry::Task& task, uint64_t context, int64_t count,
                                base::UserAddr requests);
base::Result<void> IoCancel(sentry::Task& task, uint64_t context, base::UserAddr request,
                            base::UserAddr result);
base::Result<uint64_t> IoGetevents(sentry::Task& task, uint64_t context, int64_t least,
                                   int64_t most, base::UserAddr events, base::UserAddr timeout);
base::Result<uint64_t> IoPgetevents(sentry::Task& task, uint64_t context, int64_t least,
                                    int64_t most, base::UserAddr events, base::UserAddr timeout,
                                    base::UserAddr signal_mask);

}  // namespace syscalls
