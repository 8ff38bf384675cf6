#pragma once

#include <string>
#include <string_view>

namespace cmd {

inline constexpr std::string_view kVersion = "0.1.0";
// The OCI runtime specification that the command line follows.
inline constexpr std::string_view kSpecVersion = "1.2.0";

// Two lines.
std::string VersionText();
// What the bare `runsc help` says.
std::string OverviewText();
// `runsc help do`.
std::string DoText();

}  // namespace cmd
