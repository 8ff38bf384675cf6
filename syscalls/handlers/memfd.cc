#include "syscalls/handlers/memfd.h"

#include <fcntl.h>
#include <linux/memfd.h>

#include <cerrno>
#include <string>

#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::Task;

namespace {

constexpr uint32_t kNoexecSeal = 8;  // MFD_NOEXEC_SEAL, MFD_EXEC: Linux 6.3
constexpr uint32_t kExec = 16;
constexpr uint32_t kSealExec = 0x20;   // F_SEAL_EXEC
constexpr size_t kNameBytesMax = 249;  // NAME_MAX without "memfd:"

}  // namespace

Result<int32_t> MemfdCreate(Task& task, UserAddr name, uint32_t flags) {
  constexpr uint32_t kKnown = MFD_CLOEXEC | MFD_ALLOW_SEALING | kNoexecSeal | kExec;
  if ((flags & MFD_HUGETLB) != 0) {
    constexpr uint32_t kHugeSizeBits = uint32_t{MFD_HUGE_MASK} << MFD_HUGE_SHIFT;
    if ((flags & ~(kKnown | MFD_HUGETLB | kHugeSizeBits)) != 0) return Errno(EINVAL);
    return Errno(ENOSYS);  // As without CONFIG_HUGETLBFS.
  }
  if ((flags & ~kKnown) != 0 || ((flags & kExec) != 0 && (flags & kNoexecSeal) != 0))
    return Errno(EINVAL);
  Result<std::string> text = task.memory().CopyInString(name, kNameBytesMax + 1);
  if (!text.ok()) return text.error() == ENAMETOOLONG ? Errno(EINVAL) : text.error();

  uint32_t mode = 0777;
  uint32_t seals = (flags & MFD_ALLOW_SEALING) != 0 ? 0 : F_SEAL_SEAL;
  if ((flags & kNoexecSeal) != 0) {
    mode = 0666;
    seals = kSealExec;
  }
  sentry::Kernel& kernel = task.kernel();
  const sentry::FileRef file =
      TRY(sentry::CreateMemfd(kernel.vfs(), kernel.anonymous_files().SharedMemory(kernel.pool()),
                              task.credentials(), text.value(), mode, seals));
  return task.InstallFile(file, (flags & MFD_CLOEXEC) != 0);
}

}  // namespace syscalls
