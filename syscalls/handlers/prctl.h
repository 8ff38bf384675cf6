#pragma once

// prctl(2).

#include <cstdint>

#include "platform/base/result.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<uint64_t> Prctl(sentry::Task& task, int32_t option, uint64_t a, uint64_t b, uint64_t c,
                             uint64_t d);

}  // namespace syscalls
