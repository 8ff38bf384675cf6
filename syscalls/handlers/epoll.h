#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "syscalls/abi/epoll.h"
#include "syscalls/abi/time.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> EpollCreate(sentry::Task& task, int32_t size);
base::Result<int32_t> EpollCreate1(sentry::Task& task, int32_t flags);
base::Result<void> EpollCtl(sentry::Task& task, int32_t epoll_fd, int32_t operation, int32_t fd,
                            base::UserIn<abi::EpollEvent> event);
base::Result<uint64_t> EpollWait(sentry::Task& task, int32_t epoll_fd, base::UserAddr events,
                                 int32_t count, int32_t timeout_ms);
base::Result<uint64_t> EpollPwait(sentry::Task& task, int32_t epoll_fd, base::UserAddr events,
                                  int32_t count, int32_t timeout_ms,
                                  base::UserIn<uint64_t> signal_mask, uint64_t mask_bytes);
base::Result<uint64_t> EpollPwait2(sentry::Task& task, int32_t epoll_fd, base::UserAddr events,
                                   int32_t count, base::UserIn<abi::Timespec> timeout,
                                   base::UserIn<uint64_t> signal_mask, uint64_t mask_bytes);

}  // namespace syscalls
