#pragma once

// A platform without guest code, for unit tests of the sentry. Address spaces record what is
// mapped; a "guest access" looks the address up there and reads or writes the host descriptor, as a
// CPU would through page tables. Contexts run a script.

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/platform.h"

namespace test {

class FakeAddressSpace final : public platform::AddressSpace {
 public:
  // One entry of the fake page tables: [start, end) shows host_fd from `offset` on.
  struct Entry {
    uint64_t end = 0;
    int host_fd = -1;
    uint64_t offset = 0;
    int protection = 0;
    bool is_private = false;
  };
  struct Counters {
    uint64_t maps = 0;
    uint64_t unmaps = 0;
    uint64_t protects = 0;
  };

  FakeAddressSpace(uint64_t address_min, uint64_t address_max)
      : address_min_(address_min), address_max_(address_max) {}

  base::Result<void> Map(const platform::Mapping& mapping) override ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Unmap(uint64_t address, uint64_t length) override ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Protect(uint64_t address, uint64_t length, int protection) override
      ABSL_LOCKS_EXCLUDED(mu_);

  bool Reset() override { return Unmap(address_min_, address_max_ - address_min_).ok(); }

  // What a CPU would do at `address`: nullopt is a page fault. Stores go to the host descriptor.
  std::optional<uint8_t> Load(uint64_t address) const ABSL_LOCKS_EXCLUDED(mu_);
  bool Store(uint64_t address, uint8_t value) ABSL_LOCKS_EXCLUDED(mu_);
  // The protection there; nullopt if nothing is mapped.
  std::optional<int> ProtectionAt(uint64_t address) const ABSL_LOCKS_EXCLUDED(mu_);
  std::map<uint64_t, Entry> Entries() const ABSL_LOCKS_EXCLUDED(mu_);
  Counters counters() const ABSL_LOCKS_EXCLUDED(mu_);
  // The `after`-th map from now on (0: the next one) fails with `error`; once.
  void FailMap(uint64_t after, int error) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  base::Result<void> CheckRange(uint64_t address, uint64_t length) const;
  void SplitLocked(uint64_t address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EraseLocked(uint64_t start, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const uint64_t address_min_;
  const uint64_t address_max_;
  mutable absl::Mutex mu_;
  std::map<uint64_t, Entry> entries_ ABSL_GUARDED_BY(mu_);
  Counters counters_ ABSL_GUARDED_BY(mu_);
  uint64_t fail_after_ ABSL_GUARDED_BY(mu_) = 0;
  int fail_error_ ABSL_GUARDED_BY(mu_) = 0;
};

class FakePlatform;

// Switch asks the platform's script; without one it waits for Interrupt.
class FakeContext final : public platform::Context {
 public:
  explicit FakeContext(FakePlatform& platform) : platform_(platform) {}
  base::Result<void> Prepare(platform::AddressSpace&) override { return {}; }
  platform::Event Switch(platform::AddressSpace& address_space,
                         platform::Registers& registers) override ABSL_LOCKS_EXCLUDED(mu_);
  void Interrupt() override ABSL_LOCKS_EXCLUDED(mu_);
  void GetFpu(platform::FpuState& state) override { state = fpu_; }
  base::Result<void> SetFpu(const platform::FpuState& state) override {
    fpu_ = state;
    return {};
  }
  void ResetFpu() override { fpu_ = {}; }

 private:
  FakePlatform& platform_;
  platform::FpuState fpu_;
  absl::Mutex mu_;
  bool interrupted_ ABSL_GUARDED_BY(mu_) = false;
};

class FakePlatform final : public platform::Platform {
 public:
  static constexpr uint64_t kAddressMin = 0x10000;
  static constexpr uint64_t kAddressMax = 0x7fff'ff00'0000;
  // What a context's Switch does: changes registers and reports an event; nullopt: wait for an
  // interrupt.
  using Script = std::function<std::optional<platform::Event>(
      platform::Context&, platform::AddressSpace&, platform::Registers&)>;

  std::string_view name() const override { return "fake"; }
  base::Result<std::unique_ptr<platform::AddressSpace>> NewAddressSpace() override;
  base::Result<std::unique_ptr<platform::Context>> NewContext() override;
  uint64_t user_address_min() const override { return kAddressMin; }
  uint64_t user_address_max() const override { return kAddressMax; }

  // Called by any thread that switches; itself to be thread-safe.
  void SetScript(Script script) ABSL_LOCKS_EXCLUDED(mu_);
  Script script() const ABSL_LOCKS_EXCLUDED(mu_);
  // A script: every Switch of every context takes the next event; waits when there is none.
  void PushEvent(const platform::Event& event) ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<platform::Event> PopEvent() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  Script script_ ABSL_GUARDED_BY(mu_);
  std::deque<platform::Event> events_ ABSL_GUARDED_BY(mu_);
};

}  // namespace test
