#pragma once

// What a task may do with mounts, and file systems made on its behalf: shared by mount(2) and by
// fsopen(2) and its companions.

#include <cstdint>
#include <string>
#include <string_view>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "sentry/vfs/file_system.h"

namespace sentry {

class MountNamespace;
class Mounts;
class Task;
struct FileSystemType;

// CAP_SYS_ADMIN over the mount namespace that it is in.
bool MayMount(const Task& task);
// ENODEV; EPERM if the type is not for the task's user namespace. The errors of its maker.
base::Result<FileSystemRef> MakeFileSystem(Task& task, std::string_view type,
                                           std::string_view source, std::string_view options,
                                           uint64_t super_flags);
base::Result<FileSystemRef> MakeFileSystem(Task& task, const FileSystemType& type,
                                           std::string_view source, std::string_view options,
                                           uint64_t super_flags);
// A user namespace gets its own view of the kernel (proc, sysfs) only if it sees all of another
// one already. EPERM. Adds to `mount_flags` what the other one is locked to.
base::Result<void> MayReveal(Task& task, const FileSystem& file_system, uint64_t* mount_flags);
// mount -o remount. EBUSY if it is to become read-only and somebody writes.
base::Result<void> Reconfigure(Mounts& mounts, FileSystem& file_system, uint64_t super_flags,
                               std::string_view options);
// The last argument of mount(2): at most a page, less if the memory ends. EFAULT.
base::Result<std::string> CopyInMountData(Task& task, base::UserAddr addr);

}  // namespace sentry
