#pragma once

// netdevice(7)'s ioctls over the table of interfaces. Nothing can be changed.

#include <cstdint>

#include "platform/base/result.h"

namespace sentry {

class Task;

// ENOTTY for commands that are not of this kind.
base::Result<uint64_t> InterfaceIoctl(Task& task, uint32_t command, uint64_t argument);

}  // namespace sentry
