#pragma once

// For whoever bounds the sandbox's memory (sentry/kernel/memory_limit.h): MemoryPool's other face.
// Those who take memory from the pool need not know of it.

#include <cstdint>
#include <functional>

namespace platform {

class MemoryPool;

class PoolWatch {
 public:
  virtual ~PoolWatch() = default;
  // `crossed` is called, with a caller's locks held, by the first Allocate that brings
  // allocated_bytes over the mark set by Watch. When this returns, no call of the one before runs.
  virtual void SetWatcher(std::function<void()> crossed) = 0;
  // Sets the mark. False, and nothing is set, if it has been crossed already.
  virtual bool Watch(uint64_t allocated_bytes_max) = 0;
  // What is to be refused: pages for files; then new tasks, too.
  virtual void Refuse(bool files, bool tasks) = 0;
  virtual bool refuses_files() const = 0;
  virtual bool refuses_tasks() const = 0;
};

// The pool's. It lives as long.
PoolWatch& WatchOf(MemoryPool& pool);

}  // namespace platform
