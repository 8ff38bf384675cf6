// process_vm_readv(2), process_vm_writev(2), process_madvise(2): another process's memory, under
// ptrace's rule of access.

#include <linux/capability.h>
#include <sys/mman.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/trace_access.h"
#include "sentry/mm/io_buffer.h"
#include "syscalls/handlers/memory.h"

namespace syscalls {

using base::Errno;
using base::kPageSize;
using base::Result;
using base::UserAddr;
using sentry::MemoryManager;
using sentry::Task;
using sentry::TaskRef;
using sentry::UserRange;

namespace {

constexpr uint64_t kIovMax = 1024;
constexpr uint64_t kBytesMax = 0x7ffff000;  // MAX_RW_COUNT
constexpr uint64_t kChunkBytes = 64 * 1024;
constexpr int32_t kMadvCollapse = 25;

struct GuestIovec {
  uint64_t base;
  uint64_t length;
};

Result<std::vector<UserRange>> CopyInRanges(Task& task, UserAddr vector, uint64_t count,
                                            bool bounded) {
  if (count > kIovMax) return Errno(EINVAL);
  const std::vector<GuestIovec> raw = TRY(task.memory().CopyInArray<GuestIovec>(vector, count));
  std::vector<UserRange> ranges;
  uint64_t total = 0;
  for (const GuestIovec& entry : raw) {
    if (entry.length > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return Errno(EINVAL);
    uint64_t length = entry.length;
    if (bounded) length = std::min(length, kBytesMax - total);
    total += length;
    ranges.push_back({UserAddr(entry.base), length});
  }
  return ranges;
}

Result<uint64_t> Transfer(Task& task, int32_t pid, UserAddr local, uint64_t local_count,
                          UserAddr remote, uint64_t remote_count, uint64_t flags, bool write) {
  if (flags != 0) return Errno(EINVAL);
  std::vector<UserRange> local_ranges = TRY(CopyInRanges(task, local, local_count, true));
  sentry::IoBuffer local_buffer(task.memory(), std::move(local_ranges));
  if (local_buffer.remaining() == 0) return uint64_t{0};
  const std::vector<UserRange> remote_ranges = TRY(CopyInRanges(task, remote, remote_count, false));
  const TaskRef target = sentry::FindTaskFor(task, pid);
  if (target == nullptr) return Errno(ESRCH);
  const std::shared_ptr<MemoryManager> memory = target->memory_ref();
  if (memory == nullptr) return Errno(ESRCH);
  if (!MayTrace(task.own_credentials(), &task.group(), *target, sentry::TraceIds::kReal))
    return Errno(EPERM);

  std::vector<std::byte> chunk(std::min(kChunkBytes, local_buffer.remaining()));
  for (const UserRange& range : remote_ranges) {
    uint64_t done = 0;
    while (done < range.length && local_buffer.remaining() > 0) {
      if (task.IsKilled()) return base::kRestartNoIntr;
      const uint64_t step =
          std::min({uint64_t{chunk.size()}, range.length - done, local_buffer.remaining()});
      const std::span<std::byte> bytes = std::span(chunk).first(step);
      const Result<UserAddr> at = range.addr.Plus(done);
      Result<size_t> moved = at.ok() ? Result<size_t>(step) : Result<size_t>(at.error());
      if (at.ok() && write) {
        sentry::IoBuffer peek = local_buffer;
        moved = peek.CopyIn(bytes);
        if (moved.ok()) moved = memory->CopyOutBytes(at.value(), bytes.first(moved.value()));
        if (moved.ok()) local_buffer.Skip(moved.value());
      } else if (at.ok()) {
        moved = memory->CopyInBytes(at.value(), bytes);
        if (moved.ok()) moved = local_buffer.CopyOut(bytes.first(moved.value()));
      }
      if (!moved.ok() || moved.value() < step) {
        const uint64_t total = local_buffer.done();
        return total > 0 ? Result<uint64_t>(total) : Result<uint64_t>(Errno(EFAULT));
      }
      done += step;
    }
  }
  return local_buffer.done();
}

}  // namespace

Result<uint64_t> ProcessVmReadv(Task& task, int32_t pid, UserAddr local, uint64_t local_count,
                                UserAddr remote, uint64_t remote_count, uint64_t flags) {
  return Transfer(task, pid, local, local_count, remote, remote_count, flags, false);
}

Result<uint64_t> ProcessVmWritev(Task& task, int32_t pid, UserAddr local, uint64_t local_count,
                                 UserAddr remote, uint64_t remote_count, uint64_t flags) {
  return Transfer(task, pid, local, local_count, remote, remote_count, flags, true);
}

Result<uint64_t> ProcessMadvise(Task& task, int32_t pidfd, UserAddr vector, uint64_t count,
                                int32_t advice, uint32_t flags) {
  if (flags != 0) return Errno(EINVAL);
  const std::vector<UserRange> ranges = TRY(CopyInRanges(task, vector, count, true));
  const std::shared_ptr<sentry::PidFile> file = TRY(sentry::GetPidFile(task, pidfd));
  if (advice != MADV_COLD && advice != MADV_PAGEOUT && advice != MADV_WILLNEED &&
      advice != kMadvCollapse) {
    return Errno(EINVAL);
  }
  const TaskRef target = file->group()->AnyLiveTask();
  const std::shared_ptr<MemoryManager> memory = target == nullptr ? nullptr : target->memory_ref();
  if (memory == nullptr) return Errno(ESRCH);
  if (!MayTrace(task.own_credentials(), &task.group(), *target, sentry::TraceIds::kReal))
    return Errno(EPERM);
  if (!task.own_credentials().HasCapability(CAP_SYS_NICE)) return Errno(EPERM);
  uint64_t done = 0;
  for (const UserRange& range : ranges) {
    const Result<void> advised = memory->Madvise(range.addr.value(), range.length, advice);
    if (!advised.ok()) return done > 0 ? Result<uint64_t>(done) : Result<uint64_t>(advised.error());
    done += range.length;
  }
  return done;
}

}  // namespace syscalls
