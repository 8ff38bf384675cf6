#include "syscalls/handlers/epoll.h"

#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <limits>
#include <memory>
#include <span>
#include <vector>

#include "sentry/fs/anon/epoll.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "syscalls/handlers/time_values.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using sentry::Deadline;
using sentry::EpollFile;
using sentry::FileRef;
using sentry::Task;

namespace {

Result<std::shared_ptr<EpollFile>> GetEpoll(Task& task, int32_t fd) {
  std::shared_ptr<EpollFile> epoll =
      std::dynamic_pointer_cast<EpollFile>(TRY(task.fds().GetForIo(fd)));
  if (epoll == nullptr) return Errno(EINVAL);
  return epoll;
}

}  // namespace

Result<int32_t> EpollCreate1(Task& task, int32_t flags) {
  if ((flags & ~EPOLL_CLOEXEC) != 0) return Errno(EINVAL);
  return task.InstallFile(std::make_shared<EpollFile>(task), (flags & EPOLL_CLOEXEC) != 0);
}

Result<int32_t> EpollCreate(Task& task, int32_t size) {
  if (size <= 0) return Errno(EINVAL);
  return EpollCreate1(task, 0);
}

Result<void> EpollCtl(Task& task, int32_t epoll_fd, int32_t operation, int32_t fd,
                      UserIn<abi::EpollEvent> event) {
  sentry::EpollEvent wanted;
  if (operation != EPOLL_CTL_DEL) {
    const abi::EpollEvent value = TRY(task.CopyIn(event));
    wanted = {value.events, value.data};
  }
  const FileRef epoll_file = TRY(task.fds().GetForIo(epoll_fd));
  const FileRef file = TRY(task.fds().GetForIo(fd));
  if (file->wait_queue() == nullptr) return Errno(EPERM);
  const auto epoll = std::dynamic_pointer_cast<EpollFile>(epoll_file);
  if (epoll == nullptr || file == epoll_file) return Errno(EINVAL);
  if (operation != EPOLL_CTL_DEL && (wanted.events & EPOLLEXCLUSIVE) != 0) {
    constexpr uint32_t kAllowed =
        EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;
    if (operation == EPOLL_CTL_MOD) return Errno(EINVAL);
    if (operation == EPOLL_CTL_ADD &&
        (dynamic_cast<EpollFile*>(file.get()) != nullptr || (wanted.events & ~kAllowed) != 0)) {
      return Errno(EINVAL);
    }
  }
  switch (operation) {
    case EPOLL_CTL_ADD:
      return epoll->Add(file, fd, wanted);
    case EPOLL_CTL_MOD:
      return epoll->Modify(file, fd, wanted);
    case EPOLL_CTL_DEL:
      return epoll->Delete(file, fd);
    default:
      return Errno(EINVAL);
  }
}

namespace {

// Sleeps in turn with others in epoll_wait: one event wakes one of them.
Result<size_t> SleepAndCollect(Task& task, EpollFile& epoll, size_t count, Deadline deadline,
                               const EpollFile::Deliver& deliver) {
  sentry::TaskWaiter waiter(task);
  task.ClearWake();
  epoll.waiters().Add(waiter, sentry::kPollReadable, /*exclusive=*/true);
  Result<size_t> collected = Errno(EAGAIN);
  while (true) {
    collected = epoll.Collect(count, deliver);
    if (collected.ok() || collected.error() != EAGAIN) break;
    const Result<void> woken = task.Block(deadline);
    if (!woken.ok()) {
      // What arrived together with the end of the wait is still news.
      collected = epoll.Collect(count, deliver);
      if (!collected.ok() && collected.error() == EAGAIN) collected = woken.error();
      break;
    }
  }
  epoll.waiters().Remove(waiter);
  // The wake-up that this task may have taken is another one's if it leaves something behind.
  if (epoll.MaybeReady()) epoll.waiters().Notify(sentry::kPollReadable);
  return collected;
}

Result<uint64_t> Wait(Task& task, int32_t epoll_fd, UserAddr events, int32_t count,
                      Deadline deadline, bool can_sleep) {
  constexpr int32_t kCountMax =
      std::numeric_limits<int32_t>::max() / static_cast<int32_t>(sizeof(abi::EpollEvent));
  if (count <= 0 || count > kCountMax) return Errno(EINVAL);
  const std::shared_ptr<EpollFile> epoll = TRY(GetEpoll(task, epoll_fd));
  const EpollFile::Deliver deliver =
      [&](std::span<const sentry::EpollEvent> ready) -> Result<void> {
    std::array<abi::EpollEvent, 16> few;
    std::vector<abi::EpollEvent> many;
    std::span<abi::EpollEvent> out(few);
    if (ready.size() > few.size()) {
      many.resize(ready.size());
      out = many;
    }
    out = out.first(ready.size());
    for (size_t i = 0; i < ready.size(); ++i) out[i] = {ready[i].events, ready[i].data};
    return task.memory().CopyOutArray<abi::EpollEvent>(events, out);
  };
  const auto batch = static_cast<size_t>(count);
  Result<size_t> collected = epoll->Collect(batch, deliver);
  if (!collected.ok() && collected.error() == EAGAIN && can_sleep) {
    collected = SleepAndCollect(task, *epoll, batch, deadline, deliver);
  }
  if (collected.ok()) return collected.value();
  if (collected.error() == EAGAIN || collected.error() == ETIMEDOUT) return uint64_t{0};
  // Never restarted.
  if (collected.error() == base::kRestartSys) return Errno(EINTR);
  return collected.error();
}

Deadline DeadlineInMs(Task& task, int32_t timeout_ms) {
  if (timeout_ms < 0) return Deadline::Never();
  return DeadlineAfter(task.kernel().clock(), int64_t{timeout_ms} * 1'000'000);
}

Result<void> SetMask(Task& task, UserIn<uint64_t> signal_mask, uint64_t mask_bytes) {
  if (signal_mask.is_null()) return {};
  if (mask_bytes != sizeof(uint64_t)) return Errno(EINVAL);
  task.SetTemporarySignalMask(TRY(task.CopyIn(signal_mask)));
  return {};
}

}  // namespace

Result<uint64_t> EpollWait(Task& task, int32_t epoll_fd, UserAddr events, int32_t count,
                           int32_t timeout_ms) {
  return Wait(task, epoll_fd, events, count, DeadlineInMs(task, timeout_ms), timeout_ms != 0);
}

Result<uint64_t> EpollPwait(Task& task, int32_t epoll_fd, UserAddr events, int32_t count,
                            int32_t timeout_ms, UserIn<uint64_t> signal_mask, uint64_t mask_bytes) {
  TRY(SetMask(task, signal_mask, mask_bytes));
  return Wait(task, epoll_fd, events, count, DeadlineInMs(task, timeout_ms), timeout_ms != 0);
}

Result<uint64_t> EpollPwait2(Task& task, int32_t epoll_fd, UserAddr events, int32_t count,
                             UserIn<abi::Timespec> timeout, UserIn<uint64_t> signal_mask,
                             uint64_t mask_bytes) {
  Deadline deadline = Deadline::Never();
  bool can_sleep = true;
  if (!timeout.is_null()) {
    const int64_t ns = TRY(ToNs(TRY(task.CopyIn(timeout))));
    deadline = DeadlineAfter(task.kernel().clock(), ns);
    can_sleep = ns != 0;
  }
  TRY(SetMask(task, signal_mask, mask_bytes));
  return Wait(task, epoll_fd, events, count, deadline, can_sleep);
}

}  // namespace syscalls
