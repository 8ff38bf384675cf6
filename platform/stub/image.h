#pragma once

// The stub's pages as a sealed memfd: text first, constants at STUB_TEXT_BYTES.

#include <cstdint>

#include "absl/status/statusor.h"
#include "platform/base/fd.h"

namespace platform {

struct StubImage {
  base::Fd memfd;
  uint64_t text_bytes = 0;  // Page multiple.
  uint64_t data_bytes = 0;  // Page multiple.
};

// How far a call at the fast entry has come; see stub.S. Addresses in a stub process.
struct FastStages {
  uint64_t flags = 0;
  uint64_t pack = 0;
  uint64_t packed = 0;
  uint64_t rdx = 0;
  uint64_t stored = 0;
  uint64_t whole = 0;
  uint64_t published = 0;
  uint64_t trap = 0;
  uint64_t answered = 0;
  uint64_t yield = 0;
  uint64_t yielded = 0;
};

// Addresses of entry points in a stub process.
struct StubEntries {
  uint64_t spawner = 0;
  uint64_t handler = 0;
  uint64_t restorer = 0;
  uint64_t park = 0;
  FastStages fast;
};

StubEntries GetStubEntries();
absl::StatusOr<StubImage> MakeStubImage();

}  // namespace platform
