#pragma once

// The one place that knows all platforms.

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "platform/platform.h"

namespace platform {

class MemoryPool;

enum class PlatformKind { kAuto, kSystrap, kPtrace };

// "auto", "systrap", "ptrace"; InvalidArgument for anything else.
absl::StatusOr<PlatformKind> ParsePlatformKind(std::string_view name);

struct PlatformOptions {
  bool rewrite = true;  // Offer Platform::syscall_entry, if the platform has one.
};

// kAuto is systrap, or ptrace where the host cannot do that. `memory` is what guests are going to
// have mapped, and must outlive the platform. Forks; call it when namespaces and credentials are
// final, before the seccomp filter, on a thread that lives as long as the platform.
absl::StatusOr<std::unique_ptr<Platform>> CreatePlatform(PlatformKind kind, MemoryPool& memory,
                                                         const PlatformOptions& options = {});

}  // namespace platform
