#pragma once

#include <cstdint>

#include "platform/base/result.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> Eventfd(sentry::Task& task, uint32_t initial);
base::Result<int32_t> Eventfd2(sentry::Task& task, uint32_t initial, int32_t flags);

}  // namespace syscalls
