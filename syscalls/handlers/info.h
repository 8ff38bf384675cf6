#pragma once

// What the system is: uname(2), sysinfo(2), host names, random bytes, the kernel's log.

#include <array>
#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

struct UtsName;
struct SysInfoData;

base::Result<void> Uname(sentry::Task& task, base::UserAddr name);
base::Result<void> SysInfo(sentry::Task& task, base::UserAddr info);
base::Result<void> SetHostName(sentry::Task& task, base::UserAddr name, int32_t length);
base::Result<void> SetDomainName(sentry::Task& task, base::UserAddr name, int32_t length);
base::Result<uint64_t> GetRandom(sentry::Task& task, base::UserAddr buffer, uint64_t length,
                                 uint32_t flags);
base::Result<int32_t> SysLog(sentry::Task& task, int32_t type, base::UserAddr buffer,
                             int32_t length);

}  // namespace syscalls
