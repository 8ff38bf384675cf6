#pragma once

// Guest threads are threads of stub processes, under a filter that makes every system call trap
// (SIGSYS). The handler for it, and for the signals of faults, runs on a signal stack that the
// sentry maps too, so the kernel-made frame, general registers and extended state, is where the
// sentry can read and change it. The two sides hand over through a word in shared memory. There is
// no ptrace.
//
// Needs FSGSBASE: the handler saves and loads the guest's fs and gs bases with it.

#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "platform/base/result.h"
#include "platform/platform.h"
#include "platform/stub/host.h"

namespace platform {

class SystrapPlatform final : public Platform {
 public:
  // See StubHost::Create for when and where. `offer_entry`: whether there is a syscall_entry().
  static absl::StatusOr<std::unique_ptr<SystrapPlatform>> Create(bool offer_entry);

  std::string_view name() const override { return "systrap"; }
  base::Result<std::unique_ptr<AddressSpace>> NewAddressSpace() override;
  base::Result<std::unique_ptr<Context>> NewContext() override;
  void Retire(AddressSpace& space, std::function<void()> gone) override;
  void AwaitRetired() override { host_->AwaitRetired(); }
  uint64_t user_address_min() const override;
  uint64_t user_address_max() const override;
  uint64_t syscall_entry() const override;

 private:
  SystrapPlatform(std::unique_ptr<StubHost> host, uint32_t handover_spins, bool offer_entry)
      : host_(std::move(host)), handover_spins_(handover_spins), offer_entry_(offer_entry) {}

  const std::unique_ptr<StubHost> host_;
  const uint32_t handover_spins_;
  const bool offer_entry_;
};

}  // namespace platform
