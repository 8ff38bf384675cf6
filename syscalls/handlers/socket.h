#pragma once

// The socket calls: names and options here, data in socket_message.cc.

#include <array>
#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "sentry/socket/socket.h"
#include "syscalls/abi/socket.h"
#include "syscalls/abi/time.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> SocketCall(sentry::Task& task, int32_t family, int32_t type,
                                 int32_t protocol);
base::Result<void> Socketpair(sentry::Task& task, int32_t family, int32_t type, int32_t protocol,
                              base::UserOut<std::array<int32_t, 2>> out_fds);
base::Result<void> BindCall(sentry::Task& task, int32_t fd, base::UserAddr address, int32_t length);
base::Result<void> Listen(sentry::Task& task, int32_t fd, int32_t backlog);
base::Result<int32_t> Accept(sentry::Task& task, int32_t fd, base::UserAddr address,
                             base::UserInOut<int32_t> length);
base::Result<int32_t> Accept4(sentry::Task& task, int32_t fd, base::UserAddr address,
                              base::UserInOut<int32_t> length, int32_t flags);
base::Result<void> Connect(sentry::Task& task, int32_t fd, base::UserAddr address, int32_t length);
base::Result<void> Getsockname(sentry::Task& task, int32_t fd, base::UserAddr address,
                               base::UserInOut<int32_t> length);
base::Result<void> Getpeername(sentry::Task& task, int32_t fd, base::UserAddr address,
                               base::UserInOut<int32_t> length);
base::Result<void> Shutdown(sentry::Task& task, int32_t fd, int32_t how);
base::Result<void> Setsockopt(sentry::Task& task, int32_t fd, int32_t level, int32_t name,
                              base::UserAddr value, int32_t length);
base::Result<void> Getsockopt(sentry::Task& task, int32_t fd, int32_t level, int32_t name,
                              base::UserAddr value, base::UserInOut<int32_t> length);

base::Result<uint64_t> Sendto(sentry::Task& task, int32_t fd, base::UserAddr buffer, uint64_t size,
                              int32_t flags, base::UserAddr address, int32_t length);
base::Result<uint64_t> Recvfrom(sentry::Task& task, int32_t fd, base::UserAddr buffer,
                                uint64_t size, int32_t flags, base::UserAddr address,
                                base::UserInOut<int32_t> length);
base::Result<uint64_t> Sendmsg(sentry::Task& task, int32_t fd,
                               base::UserIn<abi::MessageHeader> message, int32_t flags);
base::Result<uint64_t> Recvmsg(sentry::Task& task, int32_t fd,
                               base::UserInOut<abi::MessageHeader> message, int32_t flags);
base::Result<uint64_t> Sendmmsg(sentry::Task& task, int32_t fd, base::UserAddr messages,
                                uint32_t count, int32_t flags);
base::Result<uint64_t> Recvmmsg(sentry::Task& task, int32_t fd, base::UserAddr messages,
                                uint32_t count, int32_t flags,
                                base::UserInOut<abi::Timespec> timeout);

// --- Shared by the two files.
// EBADF, ENOTSOCK.
base::Result<sentry::SocketRef> GetSocket(sentry::Task& task, int32_t fd);
// EINVAL if `length` is negative or too large.
base::Result<sentry::SocketAddress> CopyInSocketAddress(sentry::Task& task, base::UserAddr address,
                                                        int32_t length);
// Cuts to what the guest has room for and tells the full length. EINVAL if its length is negative.
base::Result<void> CopyOutSocketAddress(sentry::Task& task, const sentry::SocketAddress& from,
                                        base::UserAddr address, base::UserInOut<int32_t> length);
// What an error of a wait with SO_RCVTIMEO or SO_SNDTIMEO becomes: such calls are not restarted.
base::Errno WaitError(base::Errno error, bool has_timeout);

}  // namespace syscalls
