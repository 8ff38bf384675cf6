#include "sentry/mm/mapping_registry.h"

#include <vector>

#include "platform/base/check.h"
#include "platform/base/user_addr.h"

namespace sentry {

void MappingRegistry::Add(MemoryManager& memory, uint64_t offset, uint64_t length,
                          bool shared_writable) {
  (void)offset;
  absl::MutexLock lock(&mu_);
  Use& use = uses_[&memory];
  use.memory = memory.weak_from_this();
  use.bytes += length;
  if (shared_writable) use.writable_bytes += length;
}

void MappingRegistry::Remove(MemoryManager& memory, uint64_t offset, uint64_t length,
                             bool shared_writable) {
  (void)offset;
  absl::MutexLock lock(&mu_);
  auto it = uses_.find(&memory);
  CHECK(it != uses_.end() && it->second.bytes >= length);
  it->second.bytes -= length;
  if (shared_writable) it->second.writable_bytes -= length;
  if (it->second.bytes == 0) uses_.erase(it);
}

std::vector<std::shared_ptr<MemoryManager>> MappingRegistry::Memories() const {
  std::vector<std::shared_ptr<MemoryManager>> memories;
  absl::MutexLock lock(&mu_);
  for (auto& [pointer, use] : uses_) {
    if (std::shared_ptr<MemoryManager> memory = use.memory.lock()) {
      memories.push_back(std::move(memory));
    }
  }
  return memories;
}

void MappingRegistry::Invalidate(const Mappable& mappable, uint64_t offset, uint64_t length) {
  for (const std::shared_ptr<MemoryManager>& memory : Memories()) {
    memory->InvalidateFile(mappable, offset, length);
  }
}

void MappingRegistry::Truncate(const Mappable& mappable, uint64_t size) {
  if (size > ~uint64_t{0} - base::kPageSize) return;
  const uint64_t start = base::PageUp(size);
  for (const std::shared_ptr<MemoryManager>& memory : Memories()) {
    memory->InvalidateFile(mappable, start, ~uint64_t{0} - start);
  }
}

bool MappingRegistry::HasMappings() const {
  absl::MutexLock lock(&mu_);
  return !uses_.empty();
}

bool MappingRegistry::HasWritableMappings() const {
  std::vector<std::shared_ptr<MemoryManager>> writers;
  {
    absl::MutexLock lock(&mu_);
    for (const auto& [pointer, use] : uses_) {
      if (use.writable_bytes == 0) continue;
      std::shared_ptr<MemoryManager> memory = use.memory.lock();
      if (memory != nullptr) writers.push_back(std::move(memory));
    }
  }
  // A process that has exited has no mappings, although its pages are still to be given back.
  bool found = false;
  for (const std::shared_ptr<MemoryManager>& memory : writers) {
    if (!memory->AwaitIfReleased()) found = true;
  }
  return found;
}

}  // namespace sentry
