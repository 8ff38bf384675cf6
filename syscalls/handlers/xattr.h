#pragma once

// xattr(7).

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<void> Setxattr(sentry::Task& task, base::UserAddr path, base::UserAddr name,
                            base::UserAddr value, uint64_t size, int32_t flags);
base::Result<void> Lsetxattr(sentry::Task& task, base::UserAddr path, base::UserAddr name,
                             base::UserAddr value, uint64_t size, int32_t flags);
base::Result<void> Fsetxattr(sentry::Task& task, int32_t fd, base::UserAddr name,
                             base::UserAddr value, uint64_t size, int32_t flags);
base::Result<uint64_t> Getxattr(sentry::Task& task, base::UserAddr path, base::UserAddr name,
                                base::UserAddr value, uint64_t size);
base::Result<uint64_t> Lgetxattr(sentry::Task& task, base::UserAddr path, base::UserAddr name,
                                 base::UserAddr value, uint64_t size);
base::Result<uint64_t> Fgetxattr(sentry::Task& task, int32_t fd, base::UserAddr name,
                                 base::UserAddr value, uint64_t size);
base::Result<uint64_t> Listxattr(sentry::Task& task, base::UserAddr path, base::UserAddr list,
                                 uint64_t size);
base::Result<uint64_t> Llistxattr(sentry::Task& task, base::UserAddr path, base::UserAddr list,
                                  uint64_t size);
base::Result<uint64_t> Flistxattr(sentry::Task& task, int32_t fd, base::UserAddr list,
                                  uint64_t size);
base::Result<void> Removexattr(sentry::Task& task, base::UserAddr path, base::UserAddr name);
base::Result<void> Lremovexattr(sentry::Task& task, base::UserAddr path, base::UserAddr name);
base::Result<void> Fremovexattr(sentry::Task& task, int32_t fd, base::UserAddr name);

}  // namespace syscalls
