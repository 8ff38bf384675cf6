#pragma once

// Where a read puts its bytes, or a write takes them from: a list of ranges in guest memory, or
// memory of the sentry's own (execve reading a header, sendfile, core dumps). It has a cursor; each
// operation advances it by what it moved.

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {

class MemoryManager;

struct UserRange {
  base::UserAddr addr;
  uint64_t length = 0;
};

class IoBuffer {
 public:
  // `memory` outlives the buffer.
  IoBuffer(MemoryManager& memory, base::UserAddr addr, uint64_t length);
  IoBuffer(MemoryManager& memory, const std::vector<UserRange>& ranges);
  explicit IoBuffer(std::span<std::byte> sentry_bytes);
  // Only for CopyIn-side uses (writes).
  explicit IoBuffer(std::span<const std::byte> sentry_bytes);

  uint64_t remaining() const { return remaining_; }
  // Bytes moved since construction.
  uint64_t done() const { return done_; }
  // Cuts what remains to at most `length` bytes.
  void Truncate(uint64_t length);
  void Skip(uint64_t length);

  // Fills the buffer from `data` / takes from the buffer into `data`: min(remaining, data.size())
  // bytes. If a byte faults, the count before it; EFAULT only if that is zero (and something was
  // asked).
  base::Result<size_t> CopyOut(std::span<const std::byte> data);
  base::Result<size_t> CopyIn(std::span<std::byte> data);
  base::Result<size_t> ZeroOut(uint64_t length);

  // Host I/O straight to or from guest memory: makes up to `length` bytes present (writable if
  // `fill`), calls `operation` with host iovecs for them (at most 64, at least one byte), advances
  // by its result. The memory stays valid, and is not given to anyone else, during the call.
  // `operation` must not block for long. EFAULT if the first byte is not accessible.
  using HostOperation = absl::FunctionRef<base::Result<size_t>(std::span<const iovec>)>;
  base::Result<size_t> WithHostMemory(uint64_t length, bool fill, HostOperation operation);

 private:
  struct Cursor {
    uint64_t address = 0;
    uint64_t length = 0;
  };
  struct Gathered;
  Cursor Current(uint64_t length);
  // With the memory's lock held.
  void Gather(uint64_t length, bool fill, Gathered& gathered);
  base::Result<size_t> Bounce(uint64_t length, bool fill, HostOperation operation);

  MemoryManager* memory_ = nullptr;           // Null: ranges are addresses in the sentry.
  absl::InlinedVector<UserRange, 1> ranges_;  // One, nearly always.
  size_t index_ = 0;
  uint64_t offset_ = 0;
  uint64_t remaining_ = 0;
  uint64_t done_ = 0;
};

}  // namespace sentry
