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
// `runsc help COMMAND` of the others; empty if there is no such command.
std::string CommandText(const std::string& command);
// `runsc completion bash`.
std::string CompletionText();
// `runsc help do`.
std::string DoText();

}  // namespace cmd
