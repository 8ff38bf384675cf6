#include "test/support/fake_platform.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "platform/base/user_addr.h"

namespace test {

using base::Errno;
using base::Result;

Result<void> FakeAddressSpace::CheckRange(uint64_t address, uint64_t length) const {
  if (length == 0 || address % base::kPageSize != 0 || length % base::kPageSize != 0) {
    return Errno(EINVAL);
  }
  if (address < address_min_ || address >= address_max_ || length > address_max_ - address) {
    return Errno(EINVAL);
  }
  return {};
}

Result<void> FakeAddressSpace::Map(const platform::Mapping& mapping) {
  TRY(CheckRange(mapping.address, mapping.length));
  if (mapping.offset % base::kPageSize != 0 || mapping.host_fd < 0) return Errno(EINVAL);
  absl::MutexLock lock(&mu_);
  if (fail_error_ != 0 && fail_after_-- == 0) return Errno(std::exchange(fail_error_, 0));
  counters_.maps++;
  const uint64_t end = mapping.address + mapping.length;
  EraseLocked(mapping.address, end);
  entries_[mapping.address] = {end, mapping.host_fd, mapping.offset, mapping.protection,
                               mapping.is_private};
  return {};
}

Result<void> FakeAddressSpace::Unmap(uint64_t address, uint64_t length) {
  TRY(CheckRange(address, length));
  absl::MutexLock lock(&mu_);
  counters_.unmaps++;
  EraseLocked(address, address + length);
  return {};
}

Result<void> FakeAddressSpace::Protect(uint64_t address, uint64_t length, int protection) {
  TRY(CheckRange(address, length));
  absl::MutexLock lock(&mu_);
  counters_.protects++;
  SplitLocked(address);
  SplitLocked(address + length);
  for (auto it = entries_.lower_bound(address);
       it != entries_.end() && it->first < address + length; ++it) {
    it->second.protection = protection;
  }
  return {};
}

void FakeAddressSpace::SplitLocked(uint64_t address) {
  auto it = entries_.lower_bound(address);
  if (it == entries_.begin()) return;
  --it;
  if (it->second.end <= address) return;
  Entry upper = it->second;
  upper.offset += address - it->first;
  it->second.end = address;
  entries_[address] = upper;
}

void FakeAddressSpace::EraseLocked(uint64_t start, uint64_t end) {
  SplitLocked(start);
  SplitLocked(end);
  entries_.erase(entries_.lower_bound(start), entries_.lower_bound(end));
}

std::optional<uint8_t> FakeAddressSpace::Load(uint64_t address) const {
  absl::MutexLock lock(&mu_);
  auto it = entries_.upper_bound(address);
  if (it == entries_.begin()) return std::nullopt;
  --it;
  if (it->second.end <= address || it->second.protection == PROT_NONE) return std::nullopt;
  uint8_t byte = 0;
  const uint64_t offset = it->second.offset + (address - it->first);
  // A hole of the file reads as zero, like the page a CPU would see.
  if (pread(it->second.host_fd, &byte, 1, static_cast<off_t>(offset)) < 0) return std::nullopt;
  return byte;
}

bool FakeAddressSpace::Store(uint64_t address, uint8_t value) {
  absl::MutexLock lock(&mu_);
  auto it = entries_.upper_bound(address);
  if (it == entries_.begin()) return false;
  --it;
  if (it->second.end <= address || (it->second.protection & PROT_WRITE) == 0) return false;
  const uint64_t offset = it->second.offset + (address - it->first);
  return pwrite(it->second.host_fd, &value, 1, static_cast<off_t>(offset)) == 1;
}

std::optional<int> FakeAddressSpace::ProtectionAt(uint64_t address) const {
  absl::MutexLock lock(&mu_);
  auto it = entries_.upper_bound(address);
  if (it == entries_.begin()) return std::nullopt;
  --it;
  if (it->second.end <= address) return std::nullopt;
  return it->second.protection;
}

std::map<uint64_t, FakeAddressSpace::Entry> FakeAddressSpace::Entries() const {
  absl::MutexLock lock(&mu_);
  return entries_;
}

FakeAddressSpace::Counters FakeAddressSpace::counters() const {
  absl::MutexLock lock(&mu_);
  return counters_;
}

void FakeAddressSpace::FailMap(uint64_t after, int error) {
  absl::MutexLock lock(&mu_);
  fail_after_ = after;
  fail_error_ = error;
}

platform::Event FakeContext::Switch(platform::AddressSpace& address_space,
                                    platform::Registers& registers) {
  {
    absl::MutexLock lock(&mu_);
    if (std::exchange(interrupted_, false)) return {.kind = platform::EventKind::kInterrupted};
  }
  if (FakePlatform::Script script = platform_.script(); script != nullptr) {
    if (std::optional<platform::Event> event = script(*this, address_space, registers)) {
      return *event;
    }
  } else if (std::optional<platform::Event> event = platform_.PopEvent()) {
    return *event;
  }
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&interrupted_));
  interrupted_ = false;
  return {.kind = platform::EventKind::kInterrupted};
}

void FakeContext::Interrupt() {
  absl::MutexLock lock(&mu_);
  interrupted_ = true;
}

Result<std::unique_ptr<platform::AddressSpace>> FakePlatform::NewAddressSpace() {
  return std::unique_ptr<platform::AddressSpace>(
      std::make_unique<FakeAddressSpace>(kAddressMin, kAddressMax));
}

Result<std::unique_ptr<platform::Context>> FakePlatform::NewContext() {
  return std::unique_ptr<platform::Context>(std::make_unique<FakeContext>(*this));
}

void FakePlatform::SetScript(Script script) {
  absl::MutexLock lock(&mu_);
  script_ = std::move(script);
}

FakePlatform::Script FakePlatform::script() const {
  absl::MutexLock lock(&mu_);
  return script_;
}

void FakePlatform::PushEvent(const platform::Event& event) {
  absl::MutexLock lock(&mu_);
  events_.push_back(event);
}

std::optional<platform::Event> FakePlatform::PopEvent() {
  absl::MutexLock lock(&mu_);
  if (events_.empty()) return std::nullopt;
  const platform::Event event = events_.front();
  events_.pop_front();
  return event;
}

}  // namespace test
