#pragma once

// inotify(7): events of watched inodes, as records to read.

#include <memory>

#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/vfs/path.h"

namespace sentry {

class InotifyQueue;

class InotifyFile : public AnonymousFile {
 public:
  static constexpr size_t kEventsMax = 16384;  // /proc/sys/fs/inotify/max_queued_events

  // EMFILE.
  static base::Result<std::shared_ptr<InotifyFile>> Create(Task& task, uint32_t flags);
  InotifyFile(Task& task, uint32_t flags, uint32_t uid);
  ~InotifyFile() override;

  // What `path` refers to is watched from now on; `mask` as for inotify_add_watch(2), checked.
  // Returns the watch descriptor. EEXIST, ENOSPC.
  base::Result<int32_t> AddWatch(const Path& path, uint32_t mask);
  // EINVAL.
  base::Result<void> RemoveWatch(int32_t descriptor);

  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;
  base::Result<uint64_t> Ioctl(Task& task, uint32_t command, uint64_t argument) override;
  PollMask Poll(PollMask interest) override;
  WaitQueue* wait_queue() override;
  bool SupportsAsync() const override { return true; }
  std::string FdInfo() const override;

 private:
  AnonymousFiles& limits_;
  const uint32_t uid_;
  const std::shared_ptr<InotifyQueue> queue_;
};

}  // namespace sentry
