#pragma once

// The descriptor table, shared by tasks that clone with CLONE_FILES.

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/vfs/file.h"

namespace sentry {

class FdTable;

// A reserved number. Dropping it unfilled gives the number back; so a system call can tell the
// guest the number first and make the descriptor exist last.
class FdSlot {
 public:
  FdSlot(FdTable& table, int32_t number) : table_(&table), number_(number) {}
  FdSlot(FdSlot&& other) noexcept
      : table_(std::exchange(other.table_, nullptr)), number_(other.number_) {}
  FdSlot& operator=(FdSlot&&) = delete;
  ~FdSlot();
  int32_t number() const { return number_; }
  void Fill(FileRef file) &&;

 private:
  FdTable* table_;
  int32_t number_;
};

// What a descriptor refers to, for the duration of a call.
class FileHold {
 public:
  explicit FileHold(File& borrowed) : file_(&borrowed) {}
  explicit FileHold(FileRef file) : file_(file.get()), reference_(std::move(file)) {}
  File* operator->() const { return file_; }
  File& operator*() const { return *file_; }

 private:
  File* file_;
  FileRef reference_;  // Null where nobody else can close the descriptor meanwhile.
};

// Thread-safe.
class FdTable {
 public:
  FdTable();
  ~FdTable();
  FdTable(const FdTable&) = delete;
  FdTable& operator=(const FdTable&) = delete;

  // EBADF. O_PATH files come too: callers that need I/O use GetForIo.
  base::Result<FileRef> Get(int32_t number) const;
  // EBADF also for O_PATH descriptors.
  base::Result<FileRef> GetForIo(int32_t number) const;
  // As Get. `only_user`: the calling task is the only one that uses this table, and will close
  // nothing as long as it has the result; then this takes neither the lock nor a reference. (Others
  // may look into the table all the same.)
  base::Result<FileHold> Hold(int32_t number, bool only_user) const;
  // Lowest free number >= `minimum`. `limit` is RLIMIT_NOFILE: EMFILE (EINVAL if minimum >= limit).
  base::Result<FdSlot> Reserve(bool close_on_exec, uint64_t limit, int32_t minimum = 0);
  // Reserve and fill.
  base::Result<int32_t> Install(FileRef file, bool close_on_exec, uint64_t limit,
                                int32_t minimum = 0);
  // dup2/dup3: replaces what is there. EBADF, EBUSY.
  base::Result<void> InstallAt(Task& task, int32_t number, FileRef file, bool close_on_exec,
                               uint64_t limit);
  base::Result<void> Close(Task& task, int32_t number);
  // close_range(2) without the unshare.
  void CloseRange(Task& task, uint32_t first, uint32_t last, bool set_close_on_exec_only);
  base::Result<bool> close_on_exec(int32_t number) const;
  base::Result<void> set_close_on_exec(int32_t number, bool value);
  // execve.
  void CloseOnExec(Task& task);
  // Copy for fork.
  std::shared_ptr<FdTable> Copy() const;
  // The last task has left.
  void CloseAll(Task& task);
  // Open numbers in ascending order (/proc/PID/fd).
  std::vector<int32_t> Numbers() const;
  // How many descriptors are open.
  size_t size() const;

 private:
  friend class FdSlot;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sentry
