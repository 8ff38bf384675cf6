#pragma once

#include <span>
#include <string>

namespace runsc {

// `install` and `uninstall`: puts this program among the runtimes of Docker's daemon.json, or takes
// it out. Whatever else is in the file stays. The exit status.
int InstallRuntime(std::span<const std::string> arguments);
int UninstallRuntime(std::span<const std::string> arguments);

}  // namespace runsc
