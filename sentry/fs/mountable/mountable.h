#pragma once

// The file systems that mount(2), fsopen(2) and a container's configuration may ask for by name.

#include <memory>

namespace sentry {

class Kernel;

// The kernel outlives them.
void RegisterFileSystemTypes(Kernel& kernel);

}  // namespace sentry
