#pragma once

// netdevice(7)'s ioctls, for the one interface there is: lo.

#include <cstdint>

#include "platform/base/result.h"

namespace sentry {

class Task;

inline constexpr int32_t kLoopbackIndex = 1;
inline constexpr int32_t kLoopbackMtu = 65536;

// ENOTTY for commands that are not of this kind.
base::Result<uint64_t> InterfaceIoctl(Task& task, uint32_t command, uint64_t argument);

}  // namespace sentry
