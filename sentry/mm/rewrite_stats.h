#pragma once

// What became of a sandbox's system calls: how they came, and which sites were rewritten.

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "platform/rewrite/call_site.h"

namespace sentry {

struct RewriteStats {
  std::atomic<uint64_t> sites{0};
  std::atomic<uint64_t> pages{0};     // Copied for it.
  std::atomic<uint64_t> reverted{0};  // Sites that got their old bytes back.
  std::array<std::atomic<uint64_t>, platform::rewrite::kRefusals> refused{};
  std::array<std::atomic<uint64_t>, 3> calls{};  // By platform::SyscallPath.
};

// One line for the log.
std::string Describe(const RewriteStats& stats);

}  // namespace sentry
