#pragma once

// What the gofer may ask of the host while it serves.

#include "platform/seccomp/filter.h"

namespace runsc {

platform::seccomp::Filter GoferFilter();

}  // namespace runsc
