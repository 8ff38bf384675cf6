#pragma once

// Credentials: credentials(7), capabilities(7), kernel/sys.c and security/commoncap.c (6.12).

#include <array>
#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<uint32_t> GetUid(sentry::Task& task);
base::Result<uint32_t> GetEuid(sentry::Task& task);
base::Result<uint32_t> GetGid(sentry::Task& task);
base::Result<uint32_t> GetEgid(sentry::Task& task);
base::Result<void> SetUid(sentry::Task& task, uint32_t uid);
base::Result<void> SetGid(sentry::Task& task, uint32_t gid);
base::Result<void> SetReUid(sentry::Task& task, uint32_t real, uint32_t effective);
base::Result<void> SetReGid(sentry::Task& task, uint32_t real, uint32_t effective);
base::Result<void> SetResUid(sentry::Task& task, uint32_t real, uint32_t effective, uint32_t saved);
base::Result<void> SetResGid(sentry::Task& task, uint32_t real, uint32_t effective, uint32_t saved);
base::Result<void> GetResUid(sentry::Task& task, base::UserOut<uint32_t> real,
                             base::UserOut<uint32_t> effective, base::UserOut<uint32_t> saved);
base::Result<void> GetResGid(sentry::Task& task, base::UserOut<uint32_t> real,
                             base::UserOut<uint32_t> effective, base::UserOut<uint32_t> saved);
base::Result<uint32_t> SetFsUid(sentry::Task& task, uint32_t uid);
base::Result<uint32_t> SetFsGid(sentry::Task& task, uint32_t gid);
base::Result<int32_t> GetGroups(sentry::Task& task, int32_t size, base::UserAddr list);
base::Result<void> SetGroups(sentry::Task& task, int32_t size, base::UserAddr list);
base::Result<void> CapGet(sentry::Task& task, base::UserAddr header, base::UserAddr data);
base::Result<void> CapSet(sentry::Task& task, base::UserAddr header, base::UserAddr data);

}  // namespace syscalls
