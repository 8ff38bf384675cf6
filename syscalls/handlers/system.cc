// Calls that ask about, or tidy up, the system as a whole: sysfs(2), vhangup(2),
// process_mrelease(2), cachestat(2).

#include "syscalls/handlers/system.h"

#include <linux/capability.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "sentry/kernel/job_control.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file_system_type.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::kPageSize;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::Task;

namespace {

struct CachestatRange {
  uint64_t offset;
  uint64_t length;
};

struct CachestatAnswer {
  uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

}  // namespace

// File system types by number and name.
Result<int32_t> Sysfs(Task& task, int32_t option, uint64_t first, uint64_t second) {
  constexpr int32_t kIndexOf = 1, kNameOf = 2, kCount = 3;
  const std::vector<std::string> types = VfsOf(task).file_system_types().Names();
  switch (option) {
    case kIndexOf: {
      const std::string name =
          TRY(task.memory().CopyInString(UserAddr(first), sentry::kPathBytesMax));
      const auto found = std::find(types.begin(), types.end(), name);
      if (found == types.end()) return Errno(EINVAL);
      return static_cast<int32_t>(found - types.begin());
    }
    case kNameOf: {
      if (first >= types.size()) return Errno(EINVAL);
      const std::string& name = types[first];
      TRY(task.memory().CopyOutExactly(UserAddr(second),
                                       std::as_bytes(std::span(name.c_str(), name.size() + 1))));
      return 0;
    }
    case kCount:
      return static_cast<int32_t>(types.size());
    default:
      return Errno(EINVAL);
  }
}

// The controlling terminal, as if its other side had gone.
Result<void> Vhangup(Task& task) {
  if (!task.own_credentials().HasCapability(CAP_SYS_TTY_CONFIG)) return Errno(EPERM);
  if (const auto terminal = task.group().terminal())
    sentry::JobControl::HangUp(task.kernel(), *terminal);
  return {};
}

// The memory of a process that is being killed goes with its last thread, without anybody's help.
Result<void> ProcessMrelease(Task& task, int32_t pidfd, uint32_t flags) {
  if (flags != 0) return Errno(EINVAL);
  const std::shared_ptr<sentry::PidFile> file = TRY(sentry::GetPidFile(task, pidfd));
  const std::shared_ptr<sentry::ThreadGroup>& group = file->group();
  if (group->IsZombie()) return Errno(ESRCH);
  if (!group->IsExiting()) return Errno(EINVAL);
  return {};
}

// The host's page cache is not ours to look into: what a file has counts as cached, and clean.
Result<void> Cachestat(Task& task, int32_t fd, UserAddr range_address, UserAddr answer,
                       uint32_t flags) {
  const sentry::FileRef file = TRY(task.fds().GetForIo(fd));
  const CachestatRange range = TRY(task.CopyIn(UserIn<CachestatRange>(range_address)));
  const sentry::InodeRef inode = file->inode();
  const uint32_t type = inode != nullptr ? inode->type() : 0;
  if (flags != 0) return Errno(EINVAL);
  CachestatAnswer counts{};
  if (type == S_IFREG) {
    const uint64_t pages = base::PageUp(TRY(file->GetAttributes()).size) / kPageSize;
    const uint64_t first = range.offset / kPageSize;
    const uint64_t last = range.length == 0 || range.length > ~range.offset
                              ? ~uint64_t{0}
                              : (range.offset + range.length - 1) / kPageSize;
    if (first < pages) counts.cached = std::min(pages - 1, last) - first + 1;
  }
  return task.CopyOut(UserOut<CachestatAnswer>(answer), counts);
}

}  // namespace syscalls
