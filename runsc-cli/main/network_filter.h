#pragma once

// What the network gofer (gofer/network) may ask of the host.

#include "platform/seccomp/filter.h"

namespace runsc {

platform::seccomp::Filter NetworkGoferFilter();

}  // namespace runsc
