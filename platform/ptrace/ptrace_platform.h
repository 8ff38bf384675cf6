#pragma once

// Guest threads are threads of stub processes, traced by the sentry: PTRACE_SYSEMU runs one until
// its next system call, which is not made, or signal. Slower than systrap by far, but it needs
// nothing of the CPU and little of the host.

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "platform/base/result.h"
#include "platform/platform.h"
#include "platform/stub/host.h"

namespace platform {

class PtracePlatform final : public Platform {
 public:
  // See StubHost::Create for when and where.
  static absl::StatusOr<std::unique_ptr<PtracePlatform>> Create();

  std::string_view name() const override { return "ptrace"; }
  base::Result<std::unique_ptr<AddressSpace>> NewAddressSpace() override;
  base::Result<std::unique_ptr<Context>> NewContext() override;
  uint64_t user_address_min() const override;
  uint64_t user_address_max() const override;

 private:
  explicit PtracePlatform(std::unique_ptr<StubHost> host) : host_(std::move(host)) {}

  const std::unique_ptr<StubHost> host_;
};

}  // namespace platform
