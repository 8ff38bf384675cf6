// getdents(2), getdents64(2). Entries are gathered first and copied out in one go: then the
// position moves, or nothing has happened.

#include "syscalls/handlers/dir.h"

#include <sys/inotify.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "sentry/kernel/task.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/notify.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::DirectoryEntry;
using sentry::Task;

namespace {

constexpr size_t kBatchBytesMax = size_t{256} << 10;
constexpr size_t kHeaderBytes = 18;  // Inode, offset, length of the record.

template <typename T>
void Put(std::vector<std::byte>* out, const T& value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  out->insert(out->end(), bytes, bytes + sizeof(T));
}

// linux_dirent64 has the type before the name, linux_dirent has it in the record's last byte.
bool Append(const DirectoryEntry& entry, bool is_64, size_t room, std::vector<std::byte>* out) {
  const size_t bytes =
      (kHeaderBytes + (is_64 ? 1 : 0) + entry.name.size() + 1 + (is_64 ? 0 : 1) + 7) & ~size_t{7};
  if (bytes > room - out->size()) return false;
  const size_t end = out->size() + bytes;
  Put(out, entry.inode);
  Put(out, entry.next_offset);
  Put(out, static_cast<uint16_t>(bytes));
  if (is_64) Put(out, entry.type);
  const auto* name = reinterpret_cast<const std::byte*>(entry.name.data());
  out->insert(out->end(), name, name + entry.name.size());
  out->resize(end);
  if (!is_64) out->back() = static_cast<std::byte>(entry.type);
  return true;
}

Result<uint64_t> ReadEntries(Task& task, int32_t fd, UserAddr buffer, uint32_t size, bool is_64) {
  const sentry::FileRef file = TRY(task.fds().GetForIo(fd));
  const sentry::InodeRef inode = file->inode();
  if (inode == nullptr || inode->type() != S_IFDIR) return Errno(ENOTDIR);
  if (file->path().dentry != nullptr && file->path().dentry->is_deleted()) return Errno(ENOENT);
  const size_t room = std::min<size_t>(size, kBatchBytesMax);
  std::vector<std::byte> records;
  records.reserve(std::min<size_t>(room, 4096));
  bool refused = false;
  const absl::MutexLock lock(&file->position_mutex());
  uint64_t offset = file->position();
  TRY(file->ReadDirectory(task, &offset, [&](const DirectoryEntry& entry) {
    refused = !Append(entry, is_64, room, &records);
    return !refused;
  }));
  if (records.empty()) {
    if (refused) return Errno(EINVAL);  // Not even one fits.
    file->position() = offset;
    return uint64_t{0};
  }
  TRY(task.memory().CopyOutExactly(buffer, records));
  file->position() = offset;
  NotifyPath(file->path(), IN_ACCESS);
  return uint64_t{records.size()};
}

}  // namespace

Result<uint64_t> Getdents(Task& task, int32_t fd, UserAddr buffer, uint32_t size) {
  return ReadEntries(task, fd, buffer, size, false);
}

Result<uint64_t> Getdents64(Task& task, int32_t fd, UserAddr buffer, uint32_t size) {
  return ReadEntries(task, fd, buffer, size, true);
}

}  // namespace syscalls
