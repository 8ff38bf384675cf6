#pragma once

// To be included before Cap'n Proto's headers. kj 0.9 leaves out these operators in C++20, where
// the reversed forms were to stand in; clang, following P2468, does not rewrite them.

#include <kj/string.h>

#if defined(__clang__) && __cpp_impl_three_way_comparison
namespace kj {
inline bool operator==(const char* a, const StringPtr& b) { return b == StringPtr(a); }
inline bool operator!=(const char* a, const StringPtr& b) { return b != StringPtr(a); }
}  // namespace kj
#endif
