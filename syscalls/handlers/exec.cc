// execve(2) and execveat(2): the strings are copied in within Linux's bounds, the rest is
// TaskExec's.

#include <fcntl.h>

#include <string>
#include <utility>
#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/task_exec.h"
#include "sentry/loader/loader.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/process.h"

namespace syscalls {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::Task;

constexpr size_t kPointersPerCopy = 64;

// A null-terminated vector of strings; a null vector is an empty one (with a warning on Linux).
// `bytes` and `count` add up over argv and envp.
Result<std::vector<std::string>> CopyInStrings(Task& task, UserAddr vector, uint64_t stack_limit,
                                               uint64_t& bytes, uint64_t& count) {
  std::vector<std::string> strings;
  if (vector.is_null()) return strings;
  uint64_t at = vector.value();
  while (true) {
    const uint64_t pointer = TRY(task.CopyIn(base::UserIn<uint64_t>(UserAddr(at))));
    if (pointer == 0) return strings;
    Result<std::string> text =
        task.memory().CopyInString(UserAddr(pointer), sentry::kArgumentBytesMax);
    if (!text.ok()) return text.error() == ENAMETOOLONG ? Errno(E2BIG) : text.error();
    bytes += text.value().size() + 1;
    ++count;
    TRY(sentry::CheckArgumentSize(bytes, count, stack_limit));
    strings.push_back(std::move(text).value());
    at = TRY(UserAddr(at).Plus(sizeof(uint64_t))).value();
    if (strings.size() % kPointersPerCopy == 0 && task.IsKilled()) return base::kRestartNoIntr;
  }
}

Result<sentry::ProgramArguments> CopyInArguments(Task& task, UserAddr argv, UserAddr envp) {
  const uint64_t stack_limit = task.group().Limit(RLIMIT_STACK);
  uint64_t bytes = 0;
  uint64_t count = 0;
  sentry::ProgramArguments arguments;
  arguments.argv = TRY(CopyInStrings(task, argv, stack_limit, bytes, count));
  arguments.envp = TRY(CopyInStrings(task, envp, stack_limit, bytes, count));
  return arguments;
}

}  // namespace

Result<void> Execve(Task& task, UserAddr path, UserAddr argv, UserAddr envp) {
  return Execveat(task, AT_FDCWD, path, argv, envp, 0);
}

Result<void> Execveat(Task& task, int32_t directory, UserAddr path, UserAddr argv, UserAddr envp,
                      int32_t flags) {
  const std::string name = TRY(task.memory().CopyInString(path, sentry::kPathBytesMax));
  if (name.empty() && (flags & AT_EMPTY_PATH) == 0) return Errno(ENOENT);
  if ((flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) != 0) return Errno(EINVAL);
  sentry::ExecRequest request;
  request.name = name;
  sentry::Path base;
  sentry::FileRef base_file;
  if (directory != AT_FDCWD && !name.starts_with('/')) {
    base_file = TRY(task.fds().Get(directory));
    base = base_file->path();
    request.name = "/dev/fd/" + std::to_string(directory) + (name.empty() ? "" : "/" + name);
    request.name_is_closed = TRY(task.fds().close_on_exec(directory));
  }
  if (name.empty()) {
    if (directory == AT_FDCWD) return Errno(EACCES);  // The working directory.
    request.executable = base;
  } else {
    sentry::WalkOptions options;
    options.follow_last = (flags & AT_SYMLINK_NOFOLLOW) == 0;
    options.will_open = true;
    request.executable = TRY(task.kernel().vfs().Walk(task, base, name, options));
    if (!options.follow_last && (request.executable.dentry->inode()->type() == S_IFLNK))
      return Errno(ELOOP);
  }
  if (!request.executable) return Errno(EACCES);  // A pipe or socket.
  request.arguments = TRY(CopyInArguments(task, argv, envp));
  return sentry::TaskExec::Exec(task, std::move(request));
}

}  // namespace syscalls
