#include "sentry/fs/mountable/mountable.h"

#include <utility>

#include "sentry/fs/devpts/devpts.h"
#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/fs/sys/sys.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/ipc/ipc_objects.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file_system_type.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// Options as one string again, for types that look at them one by one.
Result<void> CheckTmpfs(uint64_t memory_bytes, std::string_view key, std::string_view value) {
  std::string item(key);
  if (!value.empty()) item += "=" + std::string(value);
  TRY(ParseTmpfsOptions(item, memory_bytes));
  return {};
}

FileSystemType TmpfsType(Kernel& kernel, bool limited) {
  const uint64_t memory_bytes = kernel.options().memory_bytes;
  FileSystemType type;
  type.in_user_namespaces = true;
  type.check = [memory_bytes](std::string_view key, std::string_view value, bool) {
    return CheckTmpfs(memory_bytes, key, value);
  };
  type.make = [&kernel, memory_bytes,
               limited](const FileSystemType::Request& request) -> Result<FileSystemRef> {
    TmpfsOptions options = TRY(ParseTmpfsOptions(request.options, memory_bytes));
    if (!limited) options.size_bytes = options.inodes_max = 0;
    if (request.task != nullptr) {
      const Credentials& who = request.task->own_credentials();
      if (!options.uid_given) options.uid = who.fsuid;
      if (!options.gid_given) options.gid = who.fsgid;
    }
    return FileSystemRef(Tmpfs::Create(kernel.pool(), kernel.clock(), options));
  };
  return type;
}

}  // namespace

void RegisterFileSystemTypes(Kernel& kernel) {
  FileSystemTypes& types = kernel.vfs().file_system_types();
  types.Register("tmpfs", TmpfsType(kernel, true));
  types.Register("ramfs", TmpfsType(kernel, false));
  types.Register(
      "proc",
      {.make = [&kernel](const FileSystemType::Request& request) -> Result<FileSystemRef> {
         const ProcOptions options = TRY(ParseProcOptions(request.options));
         PidViewRef view;
         if (request.task != nullptr) view = request.task->group().pid_view();
         return NewProc(kernel, std::move(view), options);
       },
       .check = [](std::string_view key, std::string_view value, bool has_value) -> Result<void> {
         std::string item(key);
         if (has_value) item += "=" + std::string(value);
         TRY(ParseProcOptions(item));
         return {};
       },
       .in_user_namespaces = true});
  types.Register("sysfs",
                 {.make = [&kernel](const FileSystemType::Request&) -> Result<FileSystemRef> {
                    return NewSys(kernel);
                  },
                  .check = {},
                  .in_user_namespaces = true});
  types.Register(
      "mqueue",
      {.make = [&kernel](const FileSystemType::Request& request) -> Result<FileSystemRef> {
         IpcObjects& objects = request.task != nullptr
                                   ? IpcObjectsOf(*request.task)
                                   : IpcObjectsOf(kernel, *kernel.initial_namespaces());
         return FileSystemRef(objects.mqueue_ref());
       },
       .check = {},
       .in_user_namespaces = true});
  types.Register("devpts",
                 {.make = [&kernel](const FileSystemType::Request&) -> Result<FileSystemRef> {
                    return FileSystemRef(DevPts::Make(kernel));
                  },
                  .check = {},
                  .in_user_namespaces = true});
}

}  // namespace sentry
