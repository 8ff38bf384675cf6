// The loader's files over the vfs.

#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/loader/loader.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

class VfsProgramFile final : public ProgramFile {
 public:
  VfsProgramFile(Task& task, FileRef file) : task_(task), file_(std::move(file)) {}

  Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override {
    IoBuffer buffer(out);
    return file_->Read(task_, buffer, &offset);
  }
  Result<void> ConfigureMmap(MmapRequest& request) override {
    request.file = file_;
    return file_->ConfigureMmap(request);
  }
  FileRef file() const override { return file_; }

 private:
  Task& task_;
  const FileRef file_;
};

class VfsProgramOpener final : public ProgramOpener {
 public:
  explicit VfsProgramOpener(Task& task) : task_(task) {}
  Result<std::shared_ptr<ProgramFile>> Open(std::string_view path) override {
    WalkOptions options;
    options.will_open = true;
    const Path found = TRY(task_.kernel().vfs().Walk(task_, Path{}, path, options));
    return MakeProgramFile(task_, TRY(OpenExecutable(task_, found)));
  }

 private:
  Task& task_;
};

}  // namespace

Result<FileRef> OpenExecutable(Task& task, const Path& path) {
  if (!path || path.dentry->inode() == nullptr) return Errno(ENOENT);
  Inode& inode = *path.dentry->inode();
  if (inode.type() == S_IFLNK) return Errno(ELOOP);
  if (inode.type() != S_IFREG) return Errno(EACCES);
  if (path.mount != nullptr &&
      (path.mount->flags.load(std::memory_order_relaxed) & MS_NOEXEC) != 0) {
    return Errno(EACCES);
  }
  TRY(inode.CheckPermission(task.own_credentials(), X_OK));
  // Not through the checks of open(2): what may be executed need not be readable.
  FileRef file = TRY(inode.Open(task, path, 0));
  TRY(file->DenyWrite());
  return file;
}

std::shared_ptr<ProgramFile> MakeProgramFile(Task& task, FileRef file) {
  return std::make_shared<VfsProgramFile>(task, std::move(file));
}

std::unique_ptr<ProgramOpener> MakeProgramOpener(Task& task) {
  return std::make_unique<VfsProgramOpener>(task);
}

}  // namespace sentry
