#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> Mount(sentry::Task& task, base::UserAddr source, base::UserAddr target,
                         base::UserAddr type, uint64_t flags, base::UserAddr data);
base::Result<void> PivotRoot(sentry::Task& task, base::UserAddr new_root, base::UserAddr put_old);
base::Result<void> Umount2(sentry::Task& task, base::UserAddr target, int32_t flags);

}  // namespace syscalls
