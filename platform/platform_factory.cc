#include "platform/platform_factory.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "platform/base/log.h"
#include "platform/base/strings.h"
#include "platform/ptrace/ptrace_platform.h"
#include "platform/systrap/systrap_platform.h"

namespace platform {

absl::StatusOr<PlatformKind> ParsePlatformKind(std::string_view name) {
  if (name == "auto") return PlatformKind::kAuto;
  if (name == "systrap") return PlatformKind::kSystrap;
  if (name == "ptrace") return PlatformKind::kPtrace;
  return absl::InvalidArgumentError(
      absl::StrCat("unknown platform \"", base::Absl(name), "\"; known: auto, systrap, ptrace"));
}

absl::StatusOr<std::unique_ptr<Platform>> CreatePlatform(PlatformKind kind, MemoryPool&,
                                                         const PlatformOptions& options) {
  if (kind != PlatformKind::kPtrace) {
    absl::StatusOr<std::unique_ptr<SystrapPlatform>> systrap =
        SystrapPlatform::Create(options.rewrite);
    if (systrap.ok()) return std::unique_ptr<Platform>(*std::move(systrap));
    if (kind == PlatformKind::kSystrap) return systrap.status();
    LOG_INFO("platform: %s; trying ptrace", systrap.status().ToString().c_str());
  }
  absl::StatusOr<std::unique_ptr<PtracePlatform>> ptrace = PtracePlatform::Create();
  if (!ptrace.ok()) return ptrace.status();
  return std::unique_ptr<Platform>(*std::move(ptrace));
}

}  // namespace platform
