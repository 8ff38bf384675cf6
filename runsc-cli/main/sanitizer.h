#pragma once

// What a build with RAVELIN_SANITIZE (preset asan) needs beyond the product. The sanitizers'
// run-time library is a shared object, lives inside our processes, and makes host calls that the
// product never makes. None of that may loosen the product's tables, so it is kept here, apart, and
// does nothing in any other build:
//   - rows that are added to the compiled filters only, never to the tables that `runsc help
//   filters` shows and that
//     tests count;
//   - the host's root stays visible to a caged process, read-only by its filter, because its
//   dynamic linker has to
//     find the libraries;
//   - larger stacks, since each checked variable is surrounded by forbidden bytes.

#include "platform/seccomp/filter.h"

namespace runsc {

#ifdef RAVELIN_SANITIZE
inline constexpr bool kSanitized = true;
// `filter` with the run-time's rows.
platform::seccomp::Filter WithSanitizerRows(platform::seccomp::Filter filter);
#else
inline constexpr bool kSanitized = false;
inline platform::seccomp::Filter WithSanitizerRows(platform::seccomp::Filter filter) {
  return filter;
}
#endif

}  // namespace runsc
