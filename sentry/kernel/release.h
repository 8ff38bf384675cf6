#pragma once

#include <string_view>

namespace sentry {

// What uname(2) and /proc/version say. Linux 6.12 is what the table of system calls follows.
inline constexpr std::string_view kReleaseName = "6.12.0-ravelin";
inline constexpr std::string_view kReleaseVersion = "#1 SMP Ravelin";

}  // namespace sentry
