#pragma once

// What the gofer may ask of the host while it serves.

#include <vector>

#include "platform/seccomp/filter.h"

namespace runsc {

platform::seccomp::Filter GoferFilter();

// What a process that serves the sentry needs to be one: heap, clock, end. Both gofers' tables.
void AddHelperProcess(std::vector<platform::seccomp::Row>& rows);

}  // namespace runsc
