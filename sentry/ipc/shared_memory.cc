#include "sentry/ipc/shared_memory.h"

#include <linux/capability.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "sentry/kernel/current_task.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/shared_anonymous.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr int32_t kHugeTlb = 04000;  // SHM_HUGETLB

int32_t CallerPid() {
  const Task* task = CurrentTask();
  return task != nullptr ? task->group().id() : 0;
}

}  // namespace

// Its memory lives as long as something shows it, longer than its id.
class ShmSegment {
 public:
  IpcPermissions permissions;
  uint64_t bytes = 0;
  uint64_t pages = 0;
  int64_t attach_s = 0, detach_s = 0, change_s = 0;
  int32_t creator_pid = 0, last_pid = 0;
  uint64_t attachments = 0;
  bool removed = false;
  std::shared_ptr<SharedAnonymous> memory;
};

// One shmat(2), and what fork made of it: it counts once for each address space that shows a piece.
class ShmAttachment final : public Mappable {
 public:
  ShmAttachment(std::weak_ptr<ShmRegistry> registry, std::shared_ptr<ShmSegment> segment)
      : registry_(std::move(registry)), segment_(std::move(segment)) {}

  Result<HostRange> Translate(uint64_t offset, uint64_t length, bool for_write) override {
    return segment_->memory->Translate(offset, length, for_write);
  }
  Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override {
    return segment_->memory->ReadAt(offset, out);
  }
  Result<size_t> WriteAt(uint64_t offset, std::span<const std::byte> data) override {
    return segment_->memory->WriteAt(offset, data);
  }
  void AddMapping(MemoryManager& memory, uint64_t, uint64_t length, bool) override {
    {
      const absl::MutexLock lock(&mu_);
      uint64_t& shown = shown_[&memory];
      if (std::exchange(shown, shown + length) != 0) return;
    }
    if (const auto registry = registry_.lock()) registry->CountAttached(*segment_);
  }
  void RemoveMapping(MemoryManager& memory, uint64_t, uint64_t length, bool) override {
    {
      const absl::MutexLock lock(&mu_);
      const auto it = shown_.find(&memory);
      if (it == shown_.end()) return;
      it->second -= std::min(length, it->second);
      if (it->second != 0) return;
      shown_.erase(it);
    }
    if (const auto registry = registry_.lock()) registry->CountDetached(*segment_);
  }
  Result<void> PunchHole(uint64_t offset, uint64_t length) override {
    return segment_->memory->PunchHole(offset, length);
  }
  Result<void> Sync(uint64_t, uint64_t) override { return {}; }
  Identity identity() const override { return segment_->memory->identity(); }

 private:
  const std::weak_ptr<ShmRegistry> registry_;
  const std::shared_ptr<ShmSegment> segment_;
  absl::Mutex mu_;
  absl::flat_hash_map<const MemoryManager*, uint64_t> shown_ ABSL_GUARDED_BY(mu_);  // Bytes.
};

int64_t ShmRegistry::NowSeconds() const { return clock_.RealtimeNs() / 1'000'000'000; }

Result<int32_t> ShmRegistry::Get(int32_t key, uint64_t bytes, int32_t flags, const Credentials& who,
                                 int32_t pid) {
  const absl::MutexLock lock(&mu_);
  const auto fits = [bytes](const ShmSegment& segment) -> Result<void> {
    if (segment.bytes < bytes) return Errno(EINVAL);
    return {};
  };
  return GetIpcObject(table_, key, flags, who, fits, [&]() {
    mu_.AssertHeld();
    return Make(key, bytes, flags, who, pid);
  });
}

Result<int32_t> ShmRegistry::Make(int32_t key, uint64_t bytes, int32_t flags,
                                  const Credentials& who, int32_t pid) {
  if (bytes < 1 || bytes > limits_.segment_bytes_max) return Errno(EINVAL);
  const uint64_t pages = bytes / kPageBytes + (bytes % kPageBytes != 0);
  if (pages > limits_.pages_max || pages_ > limits_.pages_max - pages) return Errno(ENOSPC);
  if (table_.size() >= limits_.segments_max) return Errno(ENOSPC);
  if ((flags & kHugeTlb) != 0) return Errno(EINVAL);  // There are no huge pages.
  auto segment = std::make_shared<ShmSegment>();
  segment->permissions = NewIpcPermissions(key, flags, who);
  segment->bytes = bytes;
  segment->pages = pages;
  segment->change_s = NowSeconds();
  segment->creator_pid = pid;
  Result<std::shared_ptr<SharedAnonymous>> memory =
      SharedAnonymous::Create(pool_, pages * kPageBytes);
  if (!memory.ok()) return Errno(ENOMEM);
  segment->memory = std::move(memory).value();
  const int32_t id = TRY(table_.Insert(std::move(segment), limits_.segments_max));
  pages_ += pages;
  return id;
}

Result<ShmRegistry::Attachment> ShmRegistry::Attach(int32_t id, uint32_t access,
                                                    const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<ShmSegment> segment = TRY(table_.Find(id));
  TRY(CheckIpcAccess(segment->permissions, who, access));
  char name[32];
  std::snprintf(name, sizeof(name), "/SYSV%08x (deleted)",
                static_cast<uint32_t>(segment->permissions.key));
  return Attachment{std::make_shared<ShmAttachment>(weak_from_this(), segment),
                    segment->pages * kPageBytes, name};
}

bool ShmRegistry::IsAttachment(const Mappable& mappable) {
  return dynamic_cast<const ShmAttachment*>(&mappable) != nullptr;
}

void ShmRegistry::CountAttached(ShmSegment& segment) {
  const absl::MutexLock lock(&mu_);
  ++segment.attachments;
  segment.attach_s = NowSeconds();
  segment.last_pid = CallerPid();
}

void ShmRegistry::CountDetached(ShmSegment& segment) {
  const absl::MutexLock lock(&mu_);
  --segment.attachments;
  segment.detach_s = NowSeconds();
  segment.last_pid = CallerPid();
  const bool doomed = (segment.permissions.mode & kDestroy) != 0;
  if (segment.attachments == 0 && doomed && !segment.removed) DestroyLocked(segment);
}

void ShmRegistry::DestroyLocked(ShmSegment& segment) {
  segment.removed = true;
  pages_ -= segment.pages;
  table_.Remove(segment);
}

ShmStatus ShmRegistry::StatusLocked(const ShmSegment& segment) const {
  return {segment.permissions, segment.bytes,       segment.attach_s, segment.detach_s,
          segment.change_s,    segment.creator_pid, segment.last_pid, segment.attachments};
}

Result<ShmStatus> ShmRegistry::Status(int32_t id, bool by_index, bool any, const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<ShmSegment> segment =
      by_index ? TRY(table_.FindIndex(id)) : TRY(table_.Find(id));
  if (!any) TRY(CheckIpcAccess(segment->permissions, who, kIpcRead));
  return StatusLocked(*segment);
}

Result<void> ShmRegistry::SetOwner(int32_t id, const IpcOwnerChange& change,
                                   const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<ShmSegment> segment = TRY(table_.Find(id));
  TRY(CheckIpcOwner(segment->permissions, who));
  TRY(ApplyIpcOwner(segment->permissions, change));
  segment->change_s = NowSeconds();
  return {};
}

Result<void> ShmRegistry::Remove(int32_t id, const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<ShmSegment> segment = TRY(table_.Find(id));
  TRY(CheckIpcOwner(segment->permissions, who));
  if (segment->attachments == 0) {
    DestroyLocked(*segment);
  } else {
    segment->permissions.mode |= kDestroy;
    table_.DropKey(*segment);
  }
  return {};
}

Result<void> ShmRegistry::SetLocked(int32_t id, bool locked, uint64_t lock_limit,
                                    const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<ShmSegment> segment = TRY(table_.Find(id));
  if (!who.HasCapability(CAP_IPC_LOCK)) {
    const IpcPermissions& permissions = segment->permissions;
    if (who.euid != permissions.uid && who.euid != permissions.cuid) return Errno(EPERM);
    if (locked && lock_limit == 0) return Errno(EPERM);
    if (locked && segment->bytes > lock_limit) return Errno(ENOMEM);
  }
  if (locked) {
    segment->permissions.mode |= kLocked;
  } else {
    segment->permissions.mode &= ~kLocked;
  }
  return {};
}

ShmTotals ShmRegistry::Totals() const {
  const absl::MutexLock lock(&mu_);
  return {static_cast<int32_t>(table_.size()), std::max(table_.MaxIndex(), 0), pages_};
}

std::vector<ShmStatus> ShmRegistry::All() const {
  const absl::MutexLock lock(&mu_);
  std::vector<ShmStatus> all;
  all.reserve(table_.size());
  for (const auto& [index, segment] : table_.objects()) all.push_back(StatusLocked(*segment));
  return all;
}

ShmLimits ShmRegistry::limits() const {
  const absl::MutexLock lock(&mu_);
  return limits_;
}

void ShmRegistry::set_limits(const ShmLimits& limits) {
  const absl::MutexLock lock(&mu_);
  limits_ = limits;
}

int32_t ShmRegistry::next_id() const {
  const absl::MutexLock lock(&mu_);
  return table_.next_id();
}

void ShmRegistry::set_next_id(int32_t id) {
  const absl::MutexLock lock(&mu_);
  table_.set_next_id(id);
}

}  // namespace sentry
