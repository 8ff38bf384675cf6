#pragma once

// Debian's Abseil has a string_view of its own; this is the bridge, used at the few call sites.

#include <string_view>

#include "absl/strings/string_view.h"

namespace base {

inline absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }
inline std::string_view Std(absl::string_view text) { return {text.data(), text.size()}; }

}  // namespace base
