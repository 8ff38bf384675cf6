// The table is an array of files beside a bitmap of the numbers in use; a second bitmap says which
// words of the first are full, so that the lowest free number among n is found in n / 4096 steps.
// Get is on the path of nearly every call: a reader lock and one reference.

#include "sentry/vfs/fd_table.h"

#include <algorithm>
#include <bit>

#include "platform/base/check.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/inode_attachments.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr size_t kWordBits = 64;
constexpr size_t kFirstCapacity = 64;
constexpr uint64_t kFdsMax = uint64_t{1} << 20;  // fs.nr_open

// close(2) of any descriptor gives up the process's record locks on the file (fcntl_locking(2)) and
// its notice of changes.
void ReleaseProcessLocks(const File& file, const void* owner) {
  if (file.path().dentry == nullptr) return;
  const InodeRef& inode = file.path().dentry->inode();
  if (Inode::Attachments* attachments = inode->attachments_if_any()) {
    attachments->locks.ReleaseRecords(owner);
    if (inode->type() == S_IFDIR) attachments->notices.Remove(file, owner);
  }
}

}  // namespace

struct FdTable::Impl {
  struct Entry {
    FileRef file;  // Null while only reserved.
    bool close_on_exec = false;
  };
  mutable absl::Mutex mu;
  std::vector<Entry> entries ABSL_GUARDED_BY(mu);
  std::vector<uint64_t> used ABSL_GUARDED_BY(mu);
  std::vector<uint64_t> full ABSL_GUARDED_BY(mu);
  size_t count ABSL_GUARDED_BY(mu) = 0;

  bool IsUsed(size_t number) const ABSL_SHARED_LOCKS_REQUIRED(mu) {
    return number < entries.size() && ((used[number / kWordBits] >> (number % kWordBits)) & 1) != 0;
  }
  File* FileOfOnlyUser(size_t number) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return number < entries.size() ? entries[number].file.get() : nullptr;
  }
  void Grow(size_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    size_t capacity = std::max(entries.size(), kFirstCapacity);
    while (capacity <= number) capacity *= 2;
    if (capacity <= entries.size()) return;
    entries.resize(capacity);
    used.resize(capacity / kWordBits);
    full.resize((used.size() + kWordBits - 1) / kWordBits);
  }
  void MarkUsed(size_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const size_t word = number / kWordBits;
    used[word] |= uint64_t{1} << (number % kWordBits);
    if (used[word] == ~uint64_t{0}) full[word / kWordBits] |= uint64_t{1} << (word % kWordBits);
    ++count;
  }
  void MarkFree(size_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const size_t word = number / kWordBits;
    used[word] &= ~(uint64_t{1} << (number % kWordBits));
    full[word / kWordBits] &= ~(uint64_t{1} << (word % kWordBits));
    --count;
  }
  // May be one past the array.
  size_t LowestFree(size_t minimum) const ABSL_SHARED_LOCKS_REQUIRED(mu) {
    size_t word = minimum / kWordBits;
    if (word >= used.size()) return minimum;
    const uint64_t below = (uint64_t{1} << (minimum % kWordBits)) - 1;
    const uint64_t first = ~(used[word] | below);
    if (first != 0) return word * kWordBits + static_cast<size_t>(std::countr_zero(first));
    ++word;
    while (word < used.size()) {
      const uint64_t skipped = (uint64_t{1} << (word % kWordBits)) - 1;
      const uint64_t candidates = ~(full[word / kWordBits] | skipped);
      if (candidates == 0) {
        word = (word / kWordBits + 1) * kWordBits;
        continue;
      }
      word = word / kWordBits * kWordBits + static_cast<size_t>(std::countr_zero(candidates));
      if (word >= used.size()) break;
      return word * kWordBits + static_cast<size_t>(std::countr_zero(~used[word]));
    }
    return std::max(entries.size(), minimum);
  }
  // Takes the file out and frees its number. Precondition: filled.
  FileRef TakeOut(size_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    FileRef file = std::move(entries[number].file);
    entries[number].file = nullptr;
    entries[number].close_on_exec = false;
    MarkFree(number);
    return file;
  }
};

FdSlot::~FdSlot() {
  if (table_ == nullptr) return;
  const absl::MutexLock lock(&table_->impl_->mu);
  table_->impl_->entries[static_cast<size_t>(number_)].close_on_exec = false;
  table_->impl_->MarkFree(static_cast<size_t>(number_));
}

void FdSlot::Fill(FileRef file) && {
  FdTable* table = std::exchange(table_, nullptr);
  CHECK(table != nullptr && file != nullptr);
  const absl::MutexLock lock(&table->impl_->mu);
  table->impl_->entries[static_cast<size_t>(number_)].file = std::move(file);
}

FdTable::FdTable() : impl_(std::make_unique<Impl>()) {
  const absl::MutexLock lock(&impl_->mu);
  impl_->Grow(0);
}
FdTable::~FdTable() = default;

Result<FileRef> FdTable::Get(int32_t number) const {
  const auto index = static_cast<size_t>(static_cast<uint32_t>(number));
  const absl::ReaderMutexLock lock(&impl_->mu);
  if (index >= impl_->entries.size()) return Errno(EBADF);
  const FileRef& file = impl_->entries[index].file;
  if (file == nullptr) return Errno(EBADF);
  return file;
}

Result<FileHold> FdTable::Hold(int32_t number, bool only_user) const {
  if (!only_user) return FileHold(TRY(Get(number)));
  File* file = impl_->FileOfOnlyUser(static_cast<size_t>(static_cast<uint32_t>(number)));
  if (file == nullptr) return Errno(EBADF);
  return FileHold(*file);
}

Result<FileRef> FdTable::GetForIo(int32_t number) const {
  FileRef file = TRY(Get(number));
  if (file->is_path_only()) return Errno(EBADF);
  return file;
}

Result<FdSlot> FdTable::Reserve(bool close_on_exec, uint64_t limit, int32_t minimum) {
  limit = std::min(limit, kFdsMax);
  if (minimum < 0 || static_cast<uint64_t>(minimum) >= limit)
    return Errno(minimum == 0 ? EMFILE : EINVAL);
  const absl::MutexLock lock(&impl_->mu);
  const size_t number = impl_->LowestFree(static_cast<size_t>(minimum));
  if (number >= limit) return Errno(EMFILE);
  impl_->Grow(number);
  impl_->MarkUsed(number);
  impl_->entries[number].close_on_exec = close_on_exec;
  return FdSlot(*this, static_cast<int32_t>(number));
}

Result<int32_t> FdTable::Install(FileRef file, bool close_on_exec, uint64_t limit,
                                 int32_t minimum) {
  FdSlot slot = TRY(Reserve(close_on_exec, limit, minimum));
  const int32_t number = slot.number();
  std::move(slot).Fill(std::move(file));
  return number;
}

Result<void> FdTable::InstallAt(Task& task, int32_t number, FileRef file, bool close_on_exec,
                                uint64_t limit) {
  if (number < 0 || static_cast<uint64_t>(number) >= std::min(limit, kFdsMax)) return Errno(EBADF);
  const auto index = static_cast<size_t>(number);
  FileRef replaced;
  {
    const absl::MutexLock lock(&impl_->mu);
    impl_->Grow(index);
    if (!impl_->IsUsed(index)) {
      impl_->MarkUsed(index);
    } else if (impl_->entries[index].file == nullptr) {
      return Errno(EBUSY);  // Another thread is about to fill it.
    }
    replaced = std::exchange(impl_->entries[index].file, std::move(file));
    impl_->entries[index].close_on_exec = close_on_exec;
  }
  if (replaced != nullptr) {
    ReleaseProcessLocks(*replaced, this);
    // dup2 reports no error of the close that it implies (dup(2), notes).
    (void)replaced->OnClose(task).ok();
  }
  return {};
}

Result<void> FdTable::Close(Task& task, int32_t number) {
  FileRef file;
  {
    const absl::MutexLock lock(&impl_->mu);
    const auto index = static_cast<size_t>(static_cast<uint32_t>(number));
    if (index >= impl_->entries.size() || impl_->entries[index].file == nullptr)
      return Errno(EBADF);
    file = impl_->TakeOut(index);
  }
  ReleaseProcessLocks(*file, this);
  return file->OnClose(task);
}

void FdTable::CloseRange(Task& task, uint32_t first, uint32_t last, bool set_close_on_exec_only) {
  std::vector<FileRef> closed;
  {
    const absl::MutexLock lock(&impl_->mu);
    const size_t end = std::min(impl_->entries.size(), static_cast<size_t>(last) + 1);
    for (size_t index = first; index < end; ++index) {
      Impl::Entry& entry = impl_->entries[index];
      if (entry.file == nullptr) continue;
      if (set_close_on_exec_only) {
        entry.close_on_exec = true;
      } else {
        closed.push_back(impl_->TakeOut(index));
      }
    }
  }
  for (FileRef& file : closed) {
    ReleaseProcessLocks(*file, this);
    (void)file->OnClose(task).ok();  // Nobody to report it to, as on Linux.
    file = nullptr;
  }
}

Result<bool> FdTable::close_on_exec(int32_t number) const {
  const auto index = static_cast<size_t>(static_cast<uint32_t>(number));
  const absl::ReaderMutexLock lock(&impl_->mu);
  if (index >= impl_->entries.size() || impl_->entries[index].file == nullptr) return Errno(EBADF);
  return impl_->entries[index].close_on_exec;
}

Result<void> FdTable::set_close_on_exec(int32_t number, bool value) {
  const auto index = static_cast<size_t>(static_cast<uint32_t>(number));
  const absl::MutexLock lock(&impl_->mu);
  if (index >= impl_->entries.size() || impl_->entries[index].file == nullptr) return Errno(EBADF);
  impl_->entries[index].close_on_exec = value;
  return {};
}

void FdTable::CloseOnExec(Task& task) {
  std::vector<FileRef> closed;
  {
    const absl::MutexLock lock(&impl_->mu);
    for (size_t index = 0; index < impl_->entries.size(); ++index) {
      if (impl_->entries[index].file != nullptr && impl_->entries[index].close_on_exec) {
        closed.push_back(impl_->TakeOut(index));
      }
    }
  }
  for (FileRef& file : closed) {
    ReleaseProcessLocks(*file, this);
    (void)file->OnClose(task).ok();
    file = nullptr;
  }
}

std::shared_ptr<FdTable> FdTable::Copy() const {
  auto copy = std::make_shared<FdTable>();
  const absl::ReaderMutexLock lock(&impl_->mu);
  const absl::MutexLock copy_lock(&copy->impl_->mu);
  copy->impl_->Grow(impl_->entries.size() - 1);
  for (size_t index = 0; index < impl_->entries.size(); ++index) {
    if (impl_->entries[index].file == nullptr)
      continue;  // Reserved ones are the other threads' business.
    copy->impl_->entries[index] = impl_->entries[index];
    copy->impl_->MarkUsed(index);
  }
  return copy;
}

void FdTable::CloseAll(Task& task) { CloseRange(task, 0, ~uint32_t{0}, false); }

std::vector<int32_t> FdTable::Numbers() const {
  const absl::ReaderMutexLock lock(&impl_->mu);
  std::vector<int32_t> numbers;
  for (size_t index = 0; index < impl_->entries.size(); ++index) {
    if (impl_->entries[index].file != nullptr) numbers.push_back(static_cast<int32_t>(index));
  }
  return numbers;
}

size_t FdTable::size() const {
  const absl::ReaderMutexLock lock(&impl_->mu);
  return impl_->count;
}

}  // namespace sentry
