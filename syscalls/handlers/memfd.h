#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> MemfdCreate(sentry::Task& task, base::UserAddr name, uint32_t flags);

}  // namespace syscalls
