#include "platform/systrap/systrap_platform.h"

#include <sys/auxv.h>
#include <sys/prctl.h>

#include <csignal>
#include <utility>

#include "absl/status/status.h"
#include "platform/stub/address_space.h"
#include "platform/stub/futex.h"
#include "platform/stub/layout.h"
#include "platform/stub/stub_calls.h"
#include "platform/systrap/systrap_context.h"

namespace platform {
namespace {

using base::Result;

constexpr unsigned long kHwcap2Fsgsbase = 2;
constexpr unsigned long kDispatchOff = 0;

}  // namespace

absl::StatusOr<std::unique_ptr<SystrapPlatform>> SystrapPlatform::Create(bool offer_entry) {
  if ((getauxval(AT_HWCAP2) & kHwcap2Fsgsbase) == 0) {
    return absl::FailedPreconditionError(
        "systrap needs the FSGSBASE instructions, which this CPU or host kernel does not offer");
  }
  // Here and not in the first stub process, which comes up while the sentry goes on.
  if (prctl(kPrSetSyscallUserDispatch, kDispatchOff, 0, 0, 0) != 0) {
    return absl::FailedPreconditionError(
        "systrap needs syscall user dispatch, which the host kernel does not offer (Linux 5.11)");
  }
  absl::StatusOr<std::unique_ptr<StubHost>> host =
      StubHost::Create({.thread_mode = THREAD_TRAPS | THREAD_DISPATCH});
  if (!host.ok()) return host.status();
  return std::unique_ptr<SystrapPlatform>(
      new SystrapPlatform(*std::move(host), SpinsFor(Handover::kSpinNs), offer_entry));
}

Result<std::unique_ptr<AddressSpace>> SystrapPlatform::NewAddressSpace() {
  std::shared_ptr<StubProcess> process = TRY(host_->NewProcess());
  return std::unique_ptr<AddressSpace>(
      std::make_unique<StubAddressSpace>(*host_, std::move(process)));
}

Result<std::unique_ptr<Context>> SystrapPlatform::NewContext() {
  return std::unique_ptr<Context>(std::make_unique<SystrapContext>(host_->cpus(), handover_spins_));
}

void SystrapPlatform::Retire(AddressSpace& space, std::function<void()> gone) {
  host_->Retire(static_cast<StubAddressSpace&>(space).process(), std::move(gone));
}

uint64_t SystrapPlatform::user_address_min() const { return kStubUserAddressMin; }
uint64_t SystrapPlatform::user_address_max() const { return kStubUserAddressMax; }
uint64_t SystrapPlatform::syscall_entry() const { return offer_entry_ ? STUB_FAST_ENTRY : 0; }

}  // namespace platform
