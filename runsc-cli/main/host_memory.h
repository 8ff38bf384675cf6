#pragma once

#include <cstdint>

namespace runsc {

// What a sandbox may use of the host's memory where nobody has said: what is available now, or what
// the caller's cgroups allow if that is less, without a sixteenth. 0 if the host does not say.
uint64_t DefaultMemoryBytes();

}  // namespace runsc
