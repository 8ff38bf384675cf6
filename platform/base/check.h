#pragma once

// CHECK(condition): stops the process, in release builds too, when an invariant of ours is broken.
// No input of a guest, a gofer peer or a container config may reach one: those get an error.

namespace base {

// Prints one line, leaves the details in the log sink (see log.h), aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace base

#define CHECK(condition) \
  (__builtin_expect(static_cast<bool>(condition), 1) ? static_cast<void>(0) \
                                                     : ::base::CheckFailed(__FILE__, __LINE__, #condition))
