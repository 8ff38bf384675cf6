#pragma once

// An address space whose host side is a stub process.

#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "platform/platform.h"
#include "platform/stub/host.h"
#include "platform/stub/process.h"

namespace platform {

inline constexpr uint64_t kStubUserAddressMin = 0x10000;  // vm.mmap_min_addr of the usual hosts.
inline constexpr uint64_t kStubUserAddressMax = STUB_START;

class StubAddressSpace final : public AddressSpace {
 public:
  // `host` must outlive the address space.
  StubAddressSpace(StubHost& host, std::shared_ptr<StubProcess> process);
  ~StubAddressSpace() override;

  int host_pid() const override { return process_->pid(); }
  base::Result<void> Map(const Mapping& mapping) override ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Unmap(uint64_t address, uint64_t length) override ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Protect(uint64_t address, uint64_t length, int protection) override
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> ProtectAll(const std::vector<Protection>& ranges) override
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> MapAll(const std::vector<Mapping>& mappings) override ABSL_LOCKS_EXCLUDED(mu_);

  bool Reset() override;
  void End() override { host_.EndProcess(*process_); }

  const std::shared_ptr<StubProcess>& process() const { return process_; }

 private:
  base::Result<void> MapLocked(std::span<const CommandEntry> entries)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteMappedLocked(uint64_t start, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void NoteUnmappedLocked(uint64_t start, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  StubHost& host_;
  const std::shared_ptr<StubProcess> process_;
  absl::Mutex mu_;
  // What may be mapped, start -> end, neighbours joined: mprotect(2) stops at a hole, and an
  // munmap(2) of nothing need not be asked for.
  absl::btree_map<uint64_t, uint64_t> mapped_ ABSL_GUARDED_BY(mu_);
};

}  // namespace platform
