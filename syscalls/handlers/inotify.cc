#include "syscalls/handlers/inotify.h"

#include <fcntl.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>

#include "sentry/fs/anon/inotify.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/vfs.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::InotifyFile;
using sentry::Task;

namespace {

Result<std::shared_ptr<InotifyFile>> GetInotify(Task& task, int32_t fd) {
  std::shared_ptr<InotifyFile> file =
      std::dynamic_pointer_cast<InotifyFile>(TRY(task.fds().GetForIo(fd)));
  if (file == nullptr) return Errno(EINVAL);
  return file;
}

}  // namespace

Result<int32_t> InotifyInit1(Task& task, int32_t flags) {
  if ((flags & ~(IN_CLOEXEC | IN_NONBLOCK)) != 0) return Errno(EINVAL);
  return task.InstallFile(TRY(InotifyFile::Create(task, static_cast<uint32_t>(flags & O_NONBLOCK))),
                          (flags & IN_CLOEXEC) != 0);
}

Result<int32_t> InotifyInit(Task& task) { return InotifyInit1(task, 0); }

Result<int32_t> InotifyAddWatch(Task& task, int32_t fd, UserAddr path, uint32_t mask) {
  constexpr uint32_t kKnown = IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ONLYDIR |
                              IN_DONT_FOLLOW | IN_EXCL_UNLINK | IN_MASK_CREATE | IN_MASK_ADD |
                              IN_ISDIR | IN_ONESHOT;
  if ((mask & kKnown) == 0) return Errno(EINVAL);
  const sentry::FileRef file = TRY(task.fds().GetForIo(fd));
  if ((mask & IN_MASK_ADD) != 0 && (mask & IN_MASK_CREATE) != 0) return Errno(EINVAL);
  const std::shared_ptr<InotifyFile> inotify = TRY(GetInotify(task, fd));
  sentry::WalkOptions options;
  options.follow_last = (mask & IN_DONT_FOLLOW) == 0;
  options.directory_only = (mask & IN_ONLYDIR) != 0;
  const std::string name = TRY(task.memory().CopyInString(path, sentry::kPathBytesMax));
  const sentry::Path found = TRY(task.kernel().vfs().Walk(task, sentry::Path{}, name, options));
  TRY(found.dentry->inode()->CheckPermission(task.own_credentials(), R_OK));
  return inotify->AddWatch(found, mask);
}

Result<void> InotifyRmWatch(Task& task, int32_t fd, int32_t watch) {
  return TRY(GetInotify(task, fd))->RemoveWatch(watch);
}

}  // namespace syscalls
