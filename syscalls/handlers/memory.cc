// The system calls of mm/. What they do to an address space is sentry/mm's; here are the arguments,
// the files and the limits of the caller.

#include "syscalls/handlers/memory.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/membarrier.h>
#include <sys/mman.h>
#include <sys/mount.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/mappable.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file.h"

namespace syscalls {

using base::Errno;
using base::kPageSize;
using base::PageUp;
using base::Result;
using base::UserAddr;
using sentry::FileRef;
using sentry::MemoryManager;
using sentry::MmapRequest;
using sentry::Task;

namespace {

// Flags that mean something to every kind of mapping (LEGACY_MAP_MASK); MAP_SHARED_VALIDATE refuses
// others.
constexpr int kLegacyMapFlags = MAP_SHARED | MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS |
                                MAP_DENYWRITE | MAP_EXECUTABLE | 0x4000000 | MAP_GROWSDOWN |
                                MAP_LOCKED | MAP_NORESERVE | MAP_POPULATE | MAP_NONBLOCK |
                                MAP_STACK | MAP_HUGETLB | MAP_32BIT | (63 << 26);
// mincore's pages per copy to the guest.
constexpr uint64_t kMincorePages = 4096;

// CAP_IPC_LOCK lifts RLIMIT_MEMLOCK; capabilities change without the memory being told.
void RefreshLockLimit(Task& task) {
  sentry::ThreadGroup& group = task.group();
  sentry::MemoryLimits limits = task.memory().limits();
  const bool unlimited = task.own_credentials().HasCapability(CAP_IPC_LOCK);
  limits.locked_bytes = unlimited ? ~uint64_t{0} : group.Limit(RLIMIT_MEMLOCK);
  task.memory().SetLimits(limits);
}

bool IsNoExec(const sentry::File& file) {
  const std::shared_ptr<sentry::Mount>& mount = file.path().mount;
  return mount != nullptr && (mount->flags.load(std::memory_order_relaxed) & MS_NOEXEC) != 0;
}

// What do_mmap asks of a file, in its order.
Result<void> ConfigureFileMapping(MmapRequest& request) {
  sentry::File& file = *request.file;
  const int type = request.flags & MAP_TYPE;
  switch (type) {
    case MAP_SHARED_VALIDATE:
      if ((request.flags & ~MAP_TYPE & ~kLegacyMapFlags) != 0) return Errno(EOPNOTSUPP);
      [[fallthrough]];
    case MAP_SHARED:
      if ((request.protection & PROT_WRITE) != 0 && !file.writable()) return Errno(EACCES);
      request.file_writable = file.writable();
      [[fallthrough]];
    case MAP_PRIVATE:
      if (!file.readable()) return Errno(EACCES);
      break;
    default:
      return Errno(EINVAL);
  }
  if (IsNoExec(file)) {
    if ((request.protection & PROT_EXEC) != 0) return Errno(EPERM);
    request.file_executable = false;
  }
  if ((request.flags & MAP_GROWSDOWN) != 0) return Errno(EINVAL);
  return file.ConfigureMmap(request);
}

}  // namespace

Result<uint64_t> Mmap(Task& task, uint64_t address, uint64_t length, uint64_t protection,
                      uint64_t flags, uint64_t fd, uint64_t offset) {
  if (offset % kPageSize != 0) return Errno(EINVAL);
  MmapRequest request;
  request.address = address;
  request.length = length;
  request.protection = static_cast<int>(protection);
  request.flags = static_cast<int>(flags);
  request.offset = offset;
  if ((request.flags & MAP_ANONYMOUS) == 0) {
    request.file = TRY(task.fds().GetForIo(static_cast<int32_t>(fd)));
    if ((request.flags & MAP_HUGETLB) != 0) return Errno(EINVAL);
    TRY(task.memory().CheckMmap(request));
    if (length > ~uint64_t{0} / 2 || offset > ~uint64_t{0} / 2 - length) return Errno(EOVERFLOW);
    TRY(ConfigureFileMapping(request));
    // Anonymous memory by the name of /dev/zero.
    if (request.mappable == nullptr) request.file = nullptr;
  }
  if ((request.flags & MAP_LOCKED) != 0) RefreshLockLimit(task);
  return task.memory().Mmap(request);
}

// Emulated by a mapping in place, as Linux does since 4.0.
Result<void> RemapFilePages(Task& task, uint64_t start, uint64_t size, uint64_t protection,
                            uint64_t page_offset, uint64_t) {
  if (protection != 0) return Errno(EINVAL);
  start -= start % kPageSize;
  size -= size % kPageSize;
  if (start + size <= start) return Errno(EINVAL);
  const uint64_t pages_max = ~uint64_t{0} / 2 / kPageSize;
  if (page_offset > pages_max - size / kPageSize) return Errno(EINVAL);
  MmapRequest request = TRY(task.memory().RequestForShared(start, size));
  request.offset = page_offset * kPageSize;
  TRY(task.memory().Mmap(request));
  return {};
}

Result<void> Munmap(Task& task, uint64_t address, uint64_t length) {
  return task.memory().Munmap(address, length);
}

Result<void> Mprotect(Task& task, uint64_t address, uint64_t length, uint64_t protection) {
  // Bits above an int are bits that nobody knows.
  const auto bits = static_cast<int>(protection);
  return task.memory().Mprotect(address, length,
                                protection == static_cast<uint32_t>(bits) ? bits : ~0);
}

Result<uint64_t> Mremap(Task& task, uint64_t address, uint64_t old_length, uint64_t new_length,
                        uint64_t flags, uint64_t new_address) {
  if (flags > 0xff) return Errno(EINVAL);
  return task.memory().Mremap(address, old_length, new_length, static_cast<int>(flags),
                              new_address);
}

Result<uint64_t> Brk(Task& task, uint64_t address) { return task.memory().Brk(address); }

Result<void> Madvise(Task& task, uint64_t address, uint64_t length, int32_t advice) {
  constexpr int32_t kHwPoison = 100;
  constexpr int32_t kSoftOffline = 101;
  if (advice == kHwPoison || advice == kSoftOffline)
    return Errno(EPERM);  // CAP_SYS_ADMIN of the host.
  return task.memory().Madvise(address, length, advice);
}

Result<void> Msync(Task& task, uint64_t address, uint64_t length, int32_t flags) {
  return task.memory().Msync(address, length, flags);
}

Result<void> Mlock(Task& task, uint64_t address, uint64_t length) {
  RefreshLockLimit(task);
  return task.memory().Mlock(address, length, false);
}

Result<void> Mlock2(Task& task, uint64_t address, uint64_t length, int32_t flags) {
  if ((flags & ~MLOCK_ONFAULT) != 0) return Errno(EINVAL);
  RefreshLockLimit(task);
  return task.memory().Mlock(address, length, (flags & MLOCK_ONFAULT) != 0);
}

Result<void> Munlock(Task& task, uint64_t address, uint64_t length) {
  return task.memory().Munlock(address, length);
}

Result<void> MlockAll(Task& task, int32_t flags) {
  RefreshLockLimit(task);
  return task.memory().MlockAll(flags);
}

Result<void> MunlockAll(Task& task) {
  task.memory().MunlockAll();
  return {};
}

Result<void> Mincore(Task& task, uint64_t address, uint64_t length, UserAddr residency) {
  if (address % kPageSize != 0) return Errno(EINVAL);
  const uint64_t top = task.memory().address_max();
  if (address > top || length > top - address) return Errno(ENOMEM);
  const uint64_t pages = PageUp(length) / kPageSize;
  if (residency.value() > top || pages > top - residency.value()) return Errno(EFAULT);
  for (uint64_t page = 0; page < pages; page += kMincorePages) {
    const uint64_t count = std::min(kMincorePages, pages - page);
    const std::vector<uint8_t> bytes =
        TRY(task.memory().Mincore(address + page * kPageSize, count * kPageSize));
    TRY(task.memory().CopyOutExactly(UserAddr(residency.value() + page),
                                     std::as_bytes(std::span(bytes))));
  }
  return {};
}

Result<void> PkeyMprotect(Task& task, uint64_t address, uint64_t length, uint64_t protection,
                          int32_t key) {
  // As on a CPU without protection keys: there is no key but "none".
  if (key != -1) return Errno(EINVAL);
  return Mprotect(task, address, length, protection);
}

Result<uint64_t> PkeyAlloc(Task&, uint64_t flags, uint64_t rights) {
  constexpr uint64_t kRights = PKEY_DISABLE_ACCESS | PKEY_DISABLE_WRITE;
  if (flags != 0 || (rights & ~kRights) != 0) return Errno(EINVAL);
  return Errno(ENOSPC);
}

Result<void> PkeyFree(Task&, int32_t) { return Errno(EINVAL); }

namespace {

// A full memory barrier on every CPU that runs guest code of `tasks`: each is made to leave guest
// mode, or was outside of it; leaving and entering are barriers.
void BarrierOn(Task& self, const std::vector<sentry::TaskRef>& tasks) {
  std::vector<Task*> pending;
  for (const sentry::TaskRef& task : tasks) {
    if (task.get() == &self || !task->InGuest()) continue;
    task->Interrupt();
    pending.push_back(task.get());
  }
  int rounds = 0;
  while (!pending.empty()) {
    std::erase_if(pending, [](Task* task) { return !task->HasYetToNoticeInterrupt(); });
    if (pending.empty()) break;
    if (++rounds < 64) {
      sched_yield();
      continue;
    }
    const timespec pause{0, 50'000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

std::vector<sentry::TaskRef> TasksOf(Task& self, bool everybody, uint32_t registered) {
  std::vector<sentry::TaskRef> tasks;
  for (const sentry::TaskRef& task : self.kernel().pids().Tasks()) {
    const std::shared_ptr<MemoryManager> memory = task->memory_ref();
    if (memory == nullptr) continue;
    const bool own = memory.get() == &self.memory();
    if (own || everybody || (memory->membarrier_registrations().load() & registered) != 0)
      tasks.push_back(task);
  }
  return tasks;
}

}  // namespace

Result<uint64_t> Membarrier(Task& task, int32_t command, uint32_t flags, int32_t cpu) {
  constexpr uint64_t kCommands = MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_GLOBAL_EXPEDITED |
                                 MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED |
                                 MEMBARRIER_CMD_PRIVATE_EXPEDITED |
                                 MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
  (void)cpu;  // Only MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ has one.
  if (flags != 0) return Errno(EINVAL);
  std::atomic<uint32_t>& registrations = task.memory().membarrier_registrations();
  switch (command) {
    case MEMBARRIER_CMD_QUERY:
      return kCommands;
    case MEMBARRIER_CMD_GLOBAL:
      BarrierOn(task, TasksOf(task, true, 0));
      return uint64_t{0};
    case MEMBARRIER_CMD_GLOBAL_EXPEDITED:
      BarrierOn(task, TasksOf(task, false, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED));
      return uint64_t{0};
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED:
      if ((registrations.load() & MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0)
        return Errno(EPERM);
      BarrierOn(task, TasksOf(task, false, 0));
      return uint64_t{0};
    case MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED:
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED:
      registrations.fetch_or(static_cast<uint32_t>(command));
      return uint64_t{0};
    default:
      return Errno(EINVAL);
  }
}

}  // namespace syscalls
