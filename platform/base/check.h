#pragma once

// CHECK(condition): stops the process, in release builds too, when an invariant of ours is broken.
// No input of a guest, a gofer peer or a container config may reach one: those get an error.
//
// Catch2 has a CHECK of its own, which wins in test programs; inline functions in headers therefore
// use the long name, which means the same everywhere.

namespace base {

// Prints one line, leaves the details in the log sink (see log.h), aborts.
[[noreturn]] void CheckFailed(const char* file, int line, const char* condition);

}  // namespace base

#define RAVELIN_CHECK(condition)                     \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? static_cast<void>(0)                        \
       : ::base::CheckFailed(__FILE__, __LINE__, #condition))
#ifndef TWOBLUECUBES_SINGLE_INCLUDE_CATCH_HPP_INCLUDED
#define CHECK(condition) RAVELIN_CHECK(condition)
#endif
