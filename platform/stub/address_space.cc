#include "platform/stub/address_space.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <utility>

#include "platform/base/user_addr.h"

namespace platform {
namespace {

using base::Errno;
using base::Result;

constexpr int kProtectionBits = PROT_READ | PROT_WRITE | PROT_EXEC;

Result<void> CheckRange(uint64_t address, uint64_t length) {
  if (address % base::kPageSize != 0 || length % base::kPageSize != 0 || length == 0) {
    return Errno(EINVAL);
  }
  if (address < kStubUserAddressMin || address >= kStubUserAddressMax ||
      length > kStubUserAddressMax - address) {
    return Errno(EINVAL);
  }
  return {};
}

Result<CommandEntry> MapEntry(const Mapping& mapping) {
  TRY(CheckRange(mapping.address, mapping.length));
  if ((mapping.protection & ~kProtectionBits) != 0 || mapping.offset % base::kPageSize != 0 ||
      mapping.host_fd < 0) {
    return Errno(EINVAL);
  }
  const int flags = MAP_FIXED | (mapping.is_private ? MAP_PRIVATE : MAP_SHARED) |
                    (mapping.populate ? MAP_POPULATE : 0);
  return CommandEntry{
      SYS_mmap,
      {mapping.address, mapping.length, static_cast<uint64_t>(mapping.protection),
       static_cast<uint64_t>(flags), static_cast<uint64_t>(mapping.host_fd), mapping.offset},
      0};
}

}  // namespace

StubAddressSpace::StubAddressSpace(StubHost& host, std::shared_ptr<StubProcess> process)
    : host_(host), process_(std::move(process)) {}

StubAddressSpace::~StubAddressSpace() { host_.EndProcess(*process_); }

bool StubAddressSpace::Reset() {
  return !process_->dead() && process_->thread_count() <= 1 &&
         Unmap(kStubUserAddressMin, kStubUserAddressMax - kStubUserAddressMin).ok();
}

Result<void> StubAddressSpace::Map(const Mapping& mapping) {
  const CommandEntry entry = TRY(MapEntry(mapping));
  absl::MutexLock lock(&mu_);
  return MapLocked({&entry, 1});
}

Result<void> StubAddressSpace::MapAll(const std::vector<Mapping>& mappings) {
  std::vector<CommandEntry> entries;
  entries.reserve(mappings.size());
  for (const Mapping& mapping : mappings) entries.push_back(TRY(MapEntry(mapping)));
  absl::MutexLock lock(&mu_);
  return MapLocked(entries);
}

Result<void> StubAddressSpace::MapLocked(std::span<const CommandEntry> entries) {
  Result<void> result = process_->Run(entries);
  for (const CommandEntry& entry : entries) {
    const uint64_t start = entry.args[0];
    const uint64_t length = entry.args[1];
    if (result.ok()) {
      NoteMappedLocked(start, start + length);
      continue;
    }
    // A MAP_FIXED that fails may have removed what was there. Make it certain.
    const CommandEntry unmap = {SYS_munmap, {start, length}, 0};
    if (process_->Run({&unmap, 1}).ok()) NoteUnmappedLocked(start, start + length);
  }
  return result;
}

Result<void> StubAddressSpace::Unmap(uint64_t address, uint64_t length) {
  TRY(CheckRange(address, length));
  const uint64_t end = address + length;
  absl::MutexLock lock(&mu_);
  auto it = mapped_.lower_bound(address);
  const bool touched = (it != mapped_.end() && it->first < end) ||
                       (it != mapped_.begin() && std::prev(it)->second > address);
  if (!touched) {
    if (process_->dead()) return Errno(ESRCH);
    return {};
  }
  const CommandEntry entry = {SYS_munmap, {address, length}, 0};
  TRY(process_->Run({&entry, 1}));
  NoteUnmappedLocked(address, end);
  return {};
}

Result<void> StubAddressSpace::Protect(uint64_t address, uint64_t length, int protection) {
  return ProtectAll({{address, length, protection}});
}

Result<void> StubAddressSpace::ProtectAll(const std::vector<Protection>& ranges) {
  std::vector<CommandEntry> entries;
  absl::MutexLock lock(&mu_);
  for (const auto& [address, length, protection] : ranges) {
    TRY(CheckRange(address, length));
    if ((protection & ~kProtectionBits) != 0) return Errno(EINVAL);
    const uint64_t end = address + length;
    auto it = mapped_.upper_bound(address);
    if (it != mapped_.begin()) --it;
    for (; it != mapped_.end() && it->first < end; ++it) {
      const uint64_t from = std::max(address, it->first);
      const uint64_t to = std::min(end, it->second);
      if (from >= to) continue;
      entries.push_back({SYS_mprotect, {from, to - from, static_cast<uint64_t>(protection)}, 0});
    }
  }
  return process_->Run(entries);
}

void StubAddressSpace::NoteMappedLocked(uint64_t start, uint64_t end) {
  auto it = mapped_.upper_bound(start);
  if (it != mapped_.begin() && std::prev(it)->second >= start) --it;
  while (it != mapped_.end() && it->first <= end) {
    start = std::min(start, it->first);
    end = std::max(end, it->second);
    it = mapped_.erase(it);
  }
  mapped_.emplace(start, end);
}

void StubAddressSpace::NoteUnmappedLocked(uint64_t start, uint64_t end) {
  auto it = mapped_.upper_bound(start);
  if (it != mapped_.begin() && std::prev(it)->second > start) --it;
  while (it != mapped_.end() && it->first < end) {
    const auto [old_start, old_end] = *it;
    it = mapped_.erase(it);
    if (old_start < start) mapped_.emplace(old_start, start);
    if (old_end > end) {
      mapped_.emplace(end, old_end);
      break;
    }
    it = mapped_.upper_bound(start);
  }
}

}  // namespace platform
