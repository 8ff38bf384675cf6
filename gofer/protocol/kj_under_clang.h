#pragma once

// kj 0.9 declares its comparisons with a C string on the left only where the compiler does not rewrite operators as
// C++20 says; but its operator!= keeps clang from rewriting (P2468). Put in front of the files that include
// capnp when clang compiles them: they see the declarations.

#include <initializer_list>

#pragma push_macro("__cpp_impl_three_way_comparison")
#undef __cpp_impl_three_way_comparison
#include <kj/string.h>
#pragma pop_macro("__cpp_impl_three_way_comparison")
