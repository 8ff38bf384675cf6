#pragma once

// kj 0.9 leaves the comparison of a C string with a StringPtr to C++20's rewriting of operators, which clang does
// not apply as its headers need it. Put in front of the files that include capnp when clang compiles them.

#include <kj/string.h>

namespace capnp {

inline bool operator==(const char* a, const kj::StringPtr& b) { return b == kj::StringPtr(a); }
inline bool operator!=(const char* a, const kj::StringPtr& b) { return !(b == kj::StringPtr(a)); }

}  // namespace capnp
