#pragma once

#include <array>
#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> Pipe(sentry::Task& task, base::UserOut<std::array<int32_t, 2>> out_fds);
base::Result<void> Pipe2(sentry::Task& task, base::UserOut<std::array<int32_t, 2>> out_fds,
                         int32_t flags);

}  // namespace syscalls
