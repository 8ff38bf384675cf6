#include "platform/ptrace/ptrace_platform.h"

#include <utility>

#include "absl/status/status.h"
#include "platform/ptrace/ptrace_context.h"
#include "platform/stub/address_space.h"

namespace platform {
namespace {

using base::Result;

}  // namespace

absl::StatusOr<std::unique_ptr<PtracePlatform>> PtracePlatform::Create() {
  absl::StatusOr<std::unique_ptr<StubHost>> host =
      StubHost::Create({.thread_mode = 0, .traced = true});
  if (!host.ok()) return host.status();
  std::unique_ptr<PtracePlatform> platform(new PtracePlatform(*std::move(host)));
  // Whether we may trace at all (Yama, a container's filter) shows when we try.
  Result<std::unique_ptr<AddressSpace>> probe = platform->NewAddressSpace();
  if (!probe.ok()) return absl::ErrnoToStatus(probe.error().value(), "ptrace: stub process");
  PtraceContext context(platform->host_->cpus());
  Result<void> attached = context.Attach(*probe.value());
  if (!attached.ok()) {
    return absl::ErrnoToStatus(attached.error().value(), "ptrace: cannot trace a stub thread");
  }
  return platform;
}

Result<std::unique_ptr<AddressSpace>> PtracePlatform::NewAddressSpace() {
  std::shared_ptr<StubProcess> process = TRY(host_->NewProcess());
  return std::unique_ptr<AddressSpace>(
      std::make_unique<StubAddressSpace>(*host_, std::move(process)));
}

Result<std::unique_ptr<Context>> PtracePlatform::NewContext() {
  return std::unique_ptr<Context>(std::make_unique<PtraceContext>(host_->cpus()));
}

uint64_t PtracePlatform::user_address_min() const { return kStubUserAddressMin; }
uint64_t PtracePlatform::user_address_max() const { return kStubUserAddressMax; }

}  // namespace platform
