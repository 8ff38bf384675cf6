#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> Fsopen(sentry::Task& task, base::UserAddr type, uint32_t flags);
base::Result<int32_t> Fspick(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                             uint32_t flags);
base::Result<void> Fsconfig(sentry::Task& task, int32_t fd, uint32_t command, base::UserAddr key,
                            base::UserAddr value, int32_t extra);
base::Result<int32_t> Fsmount(sentry::Task& task, int32_t fd, uint32_t flags, uint32_t attributes);
base::Result<void> MoveMount(sentry::Task& task, int32_t from_fd, base::UserAddr from_path,
                             int32_t to_fd, base::UserAddr to_path, uint32_t flags);
base::Result<int32_t> OpenTree(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                               uint32_t flags);
base::Result<void> MountSetattr(sentry::Task& task, int32_t directory_fd, base::UserAddr path,
                                uint32_t flags, base::UserAddr attributes, uint64_t bytes);
base::Result<void> Statmount(sentry::Task& task, base::UserAddr request, base::UserAddr buffer,
                             uint64_t bytes, uint32_t flags);
base::Result<uint64_t> Listmount(sentry::Task& task, base::UserAddr request, base::UserAddr ids,
                                 uint64_t count, uint32_t flags);

}  // namespace syscalls
