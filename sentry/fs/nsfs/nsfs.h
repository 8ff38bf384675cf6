#pragma once

// nsfs: the files that /proc/PID/ns leads to. Each names a namespace and keeps it; it can be opened
// for setns(2), and bound somewhere so that the namespace outlives its tasks.

#include <memory>
#include <string>

#include "platform/base/result.h"
#include "sentry/kernel/namespace.h"
#include "sentry/vfs/path.h"

namespace sentry {

class File;
class Kernel;

// The place of the file of `space`.
base::Result<Path> PathOfNamespace(Kernel& kernel, std::shared_ptr<Namespace> space);
// "mnt:[4026531841]"
std::string NamespaceText(const Namespace& space);
// Null if `file` is of another kind.
std::shared_ptr<Namespace> NamespaceOf(const File& file);

}  // namespace sentry
