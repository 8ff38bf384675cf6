// io_setup(2), io_submit(2), io_getevents(2) and their kin: sentry/fs/anon/aio.h says how they
// work.
//
// The context's id is the address of a page in the guest, as libc's libaio expects: it reads a ring
// of completions there if a magic number says that there is one. There is none, so it asks.

#include "syscalls/handlers/aio.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <memory>

#include "sentry/fs/anon/aio.h"
#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/fs/anon/eventfd.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "syscalls/handlers/file.h"
#include "syscalls/handlers/io.h"
#include "syscalls/handlers/time_values.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::AioContext;
using sentry::AioContexts;
using sentry::AioEvent;
using sentry::EventFile;
using sentry::FileRef;
using sentry::Task;

namespace {

constexpr uint64_t kSlotsMax = 0x10000000U / sizeof(AioEvent);
constexpr size_t kTakeMax = 1024;  // Completions per copy to the guest.
constexpr uint64_t kSlotsPerCpu = 4;
constexpr int32_t kKnownRwf = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND;
constexpr uint32_t kPriorityFlag = 2;  // IOCB_FLAG_IOPRIO

// struct iocb, little-endian.
struct Iocb {
  uint64_t data;
  uint32_t key;
  int32_t rw_flags;
  uint16_t opcode;
  int16_t priority;
  uint32_t fd;
  uint64_t buffer;
  uint64_t bytes;
  int64_t offset;
  uint64_t reserved;
  uint32_t flags;
  uint32_t event_fd;
};
static_assert(sizeof(Iocb) == 64);

struct SignalMaskArgument {
  uint64_t mask;
  uint64_t bytes;
};

Result<std::shared_ptr<AioContext>> Find(Task& task, uint64_t id) {
  const std::shared_ptr<AioContexts> contexts = task.memory().aio();
  std::shared_ptr<AioContext> context = contexts != nullptr ? contexts->Find(id) : nullptr;
  if (context == nullptr) return Errno(EINVAL);
  return context;
}

Result<std::shared_ptr<EventFile>> NotifiedBy(Task& task, const Iocb& iocb) {
  if ((iocb.flags & IOCB_FLAG_RESFD) == 0) return std::shared_ptr<EventFile>();
  const FileRef file = TRY(task.fds().GetForIo(static_cast<int32_t>(iocb.event_fd)));
  std::shared_ptr<EventFile> event = std::dynamic_pointer_cast<EventFile>(file);
  if (event == nullptr) return Errno(EINVAL);
  return event;
}

// ioprio_check_cap: real time is for the privileged.
Result<void> CheckPriority(Task& task, const Iocb& iocb) {
  if ((iocb.flags & kPriorityFlag) == 0) return {};
  const int32_t kind = static_cast<uint16_t>(iocb.priority) >> 13;
  const sentry::Credentials& who = task.own_credentials();
  if (kind > 3) return Errno(EINVAL);
  if (kind == 1 && !who.HasCapability(CAP_SYS_ADMIN) && !who.HasCapability(CAP_SYS_NICE))
    return Errno(EPERM);
  return {};
}

// What io_submit refuses, as opposed to what becomes a completion.
Result<void> CheckTransfer(const sentry::File& file, const Iocb& iocb) {
  const bool writes = iocb.opcode == IOCB_CMD_PWRITE || iocb.opcode == IOCB_CMD_PWRITEV;
  const bool vectored = iocb.opcode == IOCB_CMD_PREADV || iocb.opcode == IOCB_CMD_PWRITEV;
  if ((iocb.rw_flags & ~kKnownRwf) != 0) return Errno(EOPNOTSUPP);
  if (writes ? !file.writable() : !file.readable()) return Errno(EBADF);
  if (static_cast<int64_t>(iocb.bytes) < 0 || (vectored && iocb.bytes > IOV_MAX))
    return Errno(EINVAL);
  if (iocb.offset < 0 && file.seekable()) return Errno(EINVAL);
  return {};
}

// At the request's offset; files without positions do not look at it.
Result<uint64_t> Transfer(Task& task, sentry::File& file, const Iocb& iocb) {
  const auto fd = static_cast<int32_t>(iocb.fd);
  const UserAddr buffer(iocb.buffer);
  const bool seekable = file.seekable();
  switch (iocb.opcode) {
    case IOCB_CMD_PREAD:
      if (iocb.rw_flags == 0 && !seekable) return Read(task, fd, buffer, iocb.bytes);
      if (iocb.rw_flags == 0) return Pread64(task, fd, buffer, iocb.bytes, iocb.offset);
      break;
    case IOCB_CMD_PWRITE:
      if (iocb.rw_flags == 0 && !seekable) return Write(task, fd, buffer, iocb.bytes);
      if (iocb.rw_flags == 0) return Pwrite64(task, fd, buffer, iocb.bytes, iocb.offset);
      break;
    case IOCB_CMD_PREADV:
      return Preadv2(task, fd, buffer, iocb.bytes, seekable ? iocb.offset : -1, 0, iocb.rw_flags);
    case IOCB_CMD_PWRITEV:
      return Pwritev2(task, fd, buffer, iocb.bytes, seekable ? iocb.offset : -1, 0, iocb.rw_flags);
    default:
      break;
  }
  // One buffer with flags: there is no call for that, so it is done where the guest cannot see it.
  if ((iocb.rw_flags & RWF_NOWAIT) != 0 && !seekable) {
    const sentry::PollMask wanted =
        iocb.opcode == IOCB_CMD_PREAD ? sentry::kPollReadable : sentry::kPollWritable;
    if ((file.Poll(wanted) & (wanted | sentry::kPollAlways)) == 0) return Errno(EAGAIN);
  }
  if (iocb.opcode == IOCB_CMD_PREAD) {
    return seekable ? Pread64(task, fd, buffer, iocb.bytes, iocb.offset)
                    : Read(task, fd, buffer, iocb.bytes);
  }
  const Result<uint64_t> written = seekable ? Pwrite64(task, fd, buffer, iocb.bytes, iocb.offset)
                                            : Write(task, fd, buffer, iocb.bytes);
  if (written.ok() && (iocb.rw_flags & (RWF_SYNC | RWF_DSYNC)) != 0) TRY(Fsync(task, fd));
  return written;
}

int64_t ResultOf(const Result<uint64_t>& result) {
  if (result.ok()) return static_cast<int64_t>(result.value());
  // There is nothing to make again: the request is over.
  const int error = result.error().value();
  return error >= base::kRestartSys.value() ? -EINTR : -error;
}

Result<void> Run(Task& task, AioContext& context, const Iocb& iocb, UserAddr address,
                 const FileRef& file) {
  const std::shared_ptr<EventFile> notified = TRY(NotifiedBy(task, iocb));
  AioEvent event{iocb.data, address.value(), 0, 0};
  switch (iocb.opcode) {
    case IOCB_CMD_PREAD:
    case IOCB_CMD_PWRITE:
    case IOCB_CMD_PREADV:
    case IOCB_CMD_PWRITEV:
      TRY(CheckPriority(task, iocb));
      TRY(CheckTransfer(*file, iocb));
      event.result = ResultOf(Transfer(task, *file, iocb));
      break;
    case IOCB_CMD_FSYNC:
    case IOCB_CMD_FDSYNC: {
      if (iocb.buffer != 0 || iocb.offset != 0 || iocb.bytes != 0 || iocb.rw_flags != 0)
        return Errno(EINVAL);
      const auto fd = static_cast<int32_t>(iocb.fd);
      const Result<void> done =
          iocb.opcode == IOCB_CMD_FSYNC ? Fsync(task, fd) : Fdatasync(task, fd);
      if (!done.ok() && done.error() == EINVAL) return done;
      event.result = done.ok() ? 0 : -done.error().value();
      break;
    }
    case IOCB_CMD_POLL: {
      if (iocb.buffer > std::numeric_limits<uint16_t>::max() || iocb.offset != 0 ||
          iocb.bytes != 0 || iocb.rw_flags != 0) {
        return Errno(EINVAL);
      }
      context.StartPoll(event, file, static_cast<sentry::PollMask>(iocb.buffer), notified);
      return {};
    }
    default:
      return Errno(EINVAL);
  }
  context.Complete(event, notified.get());
  return {};
}

Result<void> SubmitOne(Task& task, AioContext& context, UserAddr address) {
  const Iocb iocb = TRY(task.CopyIn(UserIn<Iocb>(address)));
  if (iocb.reserved != 0) return Errno(EINVAL);
  if ((iocb.flags & ~(uint32_t{IOCB_FLAG_RESFD} | kPriorityFlag)) != 0) return Errno(EINVAL);
  TRY(context.Reserve());
  const auto submit = [&]() -> Result<void> {
    const FileRef file = TRY(task.fds().GetForIo(static_cast<int32_t>(iocb.fd)));
    constexpr uint32_t kKey = 0;  // KIOCB_KEY
    TRY(task.CopyOut(UserOut<uint32_t>(TRY(address.Plus(offsetof(Iocb, key)))), kKey));
    return Run(task, context, iocb, address, file);
  };
  const Result<void> result = submit();
  if (!result.ok()) context.Unreserve();
  return result;
}

// Until there are `least`, or the time is over.
Result<uint64_t> Fetch(Task& task, uint64_t id, int64_t least, int64_t most, UserAddr events,
                       sentry::Deadline deadline, bool may_wait) {
  const std::shared_ptr<AioContext> context = TRY(Find(task, id));
  if (least < 0 || most < 0 || least > most) return Errno(EINVAL);
  uint64_t count = 0;
  const auto enough = [&] { return count >= static_cast<uint64_t>(least); };
  const auto attempt = [&]() -> Result<void> {
    while (count < static_cast<uint64_t>(most)) {
      const size_t room = std::min<uint64_t>(static_cast<uint64_t>(most) - count, kTakeMax);
      const std::vector<AioEvent> taken = context->Take(room);
      if (taken.empty()) break;
      const UserAddr to = TRY(events.Plus(count * sizeof(AioEvent)));
      TRY(task.memory().CopyOutArray<AioEvent>(to, taken));
      count += taken.size();
    }
    if (enough()) return {};
    if (context->IsClosed()) return Errno(EINVAL);
    return Errno(EAGAIN);
  };
  const Result<void> result =
      RetryUntilReady(task, &context->queue(), sentry::kPollReadable, !may_wait, deadline, attempt);
  if (result.ok() || count != 0) return count;
  if (result.error() == EAGAIN || result.error() == ETIMEDOUT) return uint64_t{0};
  return result.error() == base::kRestartSys ? Errno(EINTR) : result.error();
}

// Null: for ever. A time of zero does not sleep.
Result<uint64_t> FetchWithin(Task& task, uint64_t context, int64_t least, int64_t most,
                             UserAddr events, UserAddr timeout) {
  if (timeout.is_null())
    return Fetch(task, context, least, most, events, sentry::Deadline::Never(), true);
  const int64_t ns = TRY(ToNs(TRY(task.CopyIn(UserIn<abi::Timespec>(timeout)))));
  return Fetch(task, context, least, most, events, DeadlineAfter(task.kernel().clock(), ns),
               ns != 0);
}

}  // namespace

Result<void> IoSetup(Task& task, uint32_t events, UserAddr context) {
  const uint64_t id = TRY(task.CopyIn(UserIn<uint64_t>(context)));
  if (id != 0 || events == 0) return Errno(EINVAL);
  const uint64_t slots =
      2 * std::max<uint64_t>(events, kSlotsPerCpu * task.kernel().options().cpu_count);
  if (slots > kSlotsMax) return Errno(EINVAL);
  constexpr uint64_t kMost = sentry::AnonymousFiles::kAioRequestsMax;
  std::atomic<uint64_t>& account = task.kernel().anonymous_files().aio_requests();
  if (events > kMost || account.fetch_add(events) + events > kMost) {
    if (events <= kMost) account.fetch_sub(events);
    return Errno(EAGAIN);
  }
  // From here on its end gives them back.
  const auto made = std::make_shared<AioContext>(account, events, slots);
  std::shared_ptr<AioContexts> contexts = task.memory().aio();
  if (contexts == nullptr) contexts = task.memory().SetAio(std::make_shared<AioContexts>());
  if (contexts == nullptr) return Errno(ENOMEM);
  sentry::MmapRequest request;
  request.length = base::kPageSize;
  request.protection = PROT_READ | PROT_WRITE;
  request.flags = MAP_PRIVATE | MAP_ANONYMOUS;
  request.name = "/[aio] (deleted)";
  const uint64_t address = TRY(task.memory().Mmap(request));
  contexts->Add(address, made);
  const Result<void> told = task.CopyOut(UserOut<uint64_t>(context), address);
  if (!told.ok()) {
    contexts->Remove(address);
    TRY(task.memory().Munmap(address, base::kPageSize));
  }
  return told;
}

Result<void> IoDestroy(Task& task, uint64_t context) {
  const std::shared_ptr<AioContexts> contexts = task.memory().aio();
  const auto removed = contexts != nullptr ? contexts->Remove(context) : nullptr;
  if (removed == nullptr) return Errno(EINVAL);
  removed->Close();
  return task.memory().Munmap(context, base::kPageSize);
}

Result<uint64_t> IoSubmit(Task& task, uint64_t id, int64_t count, UserAddr requests) {
  if (count < 0) return Errno(EINVAL);
  const std::shared_ptr<AioContext> context = TRY(Find(task, id));
  int64_t done = 0;
  for (; done < count; ++done) {
    const auto submit = [&]() -> Result<void> {
      const UserAddr at = TRY(requests.Plus(static_cast<uint64_t>(done) * sizeof(uint64_t)));
      const uint64_t address = TRY(task.CopyIn(UserIn<uint64_t>(at)));
      return SubmitOne(task, *context, UserAddr(address));
    };
    const Result<void> result = submit();
    if (!result.ok() && done == 0) return result.error();
    if (!result.ok()) break;
    if (task.IsInterrupted()) {
      ++done;
      break;
    }
  }
  return static_cast<uint64_t>(done);
}

Result<void> IoCancel(Task& task, uint64_t id, UserAddr request, UserAddr) {
  const UserAddr key = TRY(request.Plus(offsetof(Iocb, key)));
  if (TRY(task.CopyIn(UserIn<uint32_t>(key))) != 0) return Errno(EINVAL);
  TRY(TRY(Find(task, id))->Cancel(request.value()));
  return Errno(EINPROGRESS);  // The completion comes by io_getevents.
}

Result<uint64_t> IoGetevents(Task& task, uint64_t context, int64_t least, int64_t most,
                             UserAddr events, UserAddr timeout) {
  return FetchWithin(task, context, least, most, events, timeout);
}

Result<uint64_t> IoPgetevents(Task& task, uint64_t context, int64_t least, int64_t most,
                              UserAddr events, UserAddr timeout, UserAddr signal_mask) {
  if (!signal_mask.is_null()) {
    const SignalMaskArgument argument = TRY(task.CopyIn(UserIn<SignalMaskArgument>(signal_mask)));
    if (argument.mask != 0) {
      if (argument.bytes != sizeof(sentry::SignalSet)) return Errno(EINVAL);
      const UserIn<sentry::SignalSet> mask{UserAddr(argument.mask)};
      task.SetTemporarySignalMask(TRY(task.CopyIn(mask)));
    }
  }
  const Result<uint64_t> result = FetchWithin(task, context, least, most, events, timeout);
  if (!result.ok() && result.error() == EINTR) return base::kRestartNoHand;
  return result;
}

}  // namespace syscalls
