// /proc/PID/fd and /proc/PID/fdinfo.

#include <fcntl.h>

#include <charconv>

#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/kernel.h"
#include "sentry/vfs/vfs.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;

Result<FileRef> FileOf(const std::weak_ptr<Task>& weak, int32_t number) {
  const TaskRef task = weak.lock();
  const std::shared_ptr<FdTable> table = task != nullptr ? task->fds_ref() : nullptr;
  if (table == nullptr) return Errno(ENOENT);
  Result<FileRef> file = table->Get(number);
  if (!file.ok()) return Errno(ENOENT);
  return file;
}

// fd/N: opening it opens the file again where it has a place in some tree.
class FdLink final : public SyntheticInode, public TransientInode {
 public:
  FdLink(ProcFileSystem& file_system, const TaskRef& task, int32_t number, const File& file)
      : SyntheticInode(file_system, S_IFLNK | 0100 | (file.readable() ? 0400 : 0) |
                                        (file.writable() ? 0200 : 0)),
        proc_(file_system),
        task_(task),
        number_(number) {}
  // Another file may be there at any time: always looked up again.
  bool StillThere() const override { return false; }

  Result<Path> FollowMagic(Task&) override {
    const FileRef file = TRY(FileOf(task_, number_));
    if (!file->path()) return Errno(ENXIO);
    return file->path();
  }
  Result<std::string> ReadLinkFor(Task& reader) override {
    const FileRef file = TRY(FileOf(task_, number_));
    std::string name = file->DisplayName();
    if (!name.empty() || !file->path()) return name;
    return proc_.kernel().vfs().NameOf(file->path(), reader.fs().root());
  }

 private:
  ProcFileSystem& proc_;
  const std::weak_ptr<Task> task_;
  const int32_t number_;
};

Result<std::string> FdInfoText(Task& task, int32_t number) {
  const FileRef file = TRY(FileOf(task.weak_from_this(), number));
  uint64_t position = 0;
  {
    const absl::MutexLock lock(&file->position_mutex());
    position = file->position();
  }
  const std::shared_ptr<FdTable> table = task.fds_ref();
  const Result<bool> close_on_exec =
      table != nullptr ? table->close_on_exec(number) : Result<bool>(false);
  const uint32_t flags =
      file->flags() |
      (close_on_exec.ok() && close_on_exec.value() ? static_cast<uint32_t>(O_CLOEXEC) : 0);
  const uint64_t mount = file->path().mount != nullptr ? file->path().mount->id : 0;
  uint64_t inode = 0;
  if (const Result<Attributes> attributes = file->GetAttributes(); attributes.ok())
    inode = attributes.value().inode;
  return Format("pos:\t%llu\nflags:\t0%o\nmnt_id:\t%llu\nino:\t%llu\n",
                static_cast<unsigned long long>(position), flags,
                static_cast<unsigned long long>(mount), static_cast<unsigned long long>(inode)) +
         file->FdInfo();
}

class FdDirectory final : public SyntheticDirectory, public TransientInode {
 public:
  FdDirectory(ProcFileSystem& file_system, const TaskRef& task, bool info, uint64_t number)
      : SyntheticDirectory(file_system, info ? 0555 : 0500, number),
        proc_(file_system),
        task_(task),
        info_(info) {}
  bool StillThere() const override { return task_.lock() != nullptr; }
  Owner owner() const override {
    const TaskRef task = task_.lock();
    if (task == nullptr) return {};
    const CredentialsRef credentials = task->credentials();
    return {credentials->euid, credentials->egid};
  }
  Result<void> CheckPermission(const Credentials& credentials, int mask) override {
    const TaskRef task = task_.lock();
    if (task != nullptr && MayTrace(credentials, nullptr, *task, TraceIds::kFileSystem)) {
      return {};
    }
    return SyntheticDirectory::CheckPermission(credentials, mask);
  }

  Result<InodeRef> Lookup(std::string_view name) override {
    const TaskRef task = task_.lock();
    int32_t number = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    const bool canonical = error == std::errc() && end == name.data() + name.size() &&
                           number >= 0 && (name == "0" || name.front() != '0');
    if (task == nullptr || !canonical) return Errno(ENOENT);
    const FileRef file = TRY(FileOf(task_, number));
    if (!info_) return InodeRef(std::make_shared<FdLink>(proc_, task, number, *file));
    return InodeRef(std::make_shared<TextInode>(
        proc_, 0444, [weak = task_, number](Task&) -> Result<std::string> {
          const TaskRef subject = weak.lock();
          if (subject == nullptr) return Errno(ENOENT);
          return FdInfoText(*subject, number);
        }));
  }

  Result<std::vector<Entry>> List(Task&) override {
    std::vector<Entry> entries;
    const TaskRef task = task_.lock();
    const std::shared_ptr<FdTable> table = task != nullptr ? task->fds_ref() : nullptr;
    if (table == nullptr) return entries;
    for (const int32_t number : table->Numbers()) {
      const auto position = static_cast<uint64_t>(number);
      entries.push_back({std::to_string(number), TaskInodeNumber(task->tid(), 1024) + position,
                         static_cast<uint8_t>(info_ ? DT_REG : DT_LNK), kFirstPosition + position});
    }
    return entries;
  }

 private:
  ProcFileSystem& proc_;
  const std::weak_ptr<Task> task_;
  const bool info_;
};

}  // namespace

InodeRef NewFdDirectory(ProcFileSystem& file_system, const TaskRef& task, bool info,
                        uint64_t number) {
  return std::make_shared<FdDirectory>(file_system, task, info, number);
}

}  // namespace sentry
