#pragma once

// The filters of sentry_filter.h, gofer_filter.h and network_filter.h as programs. compile_filters
// makes them when the product is built, so that a start spends nothing on it: a sixth of a
// millisecond in each process, and the code of the compiler.

#include <linux/filter.h>

#include <cstddef>
#include <span>

namespace runsc {

struct CompiledFilter {
  std::span<const sock_filter> program;
  size_t calls_allowed;  // Distinct numbers, for the log.
};

// For a sentry that is pid 1 of its namespace.
extern const CompiledFilter kSystrapSentryFilter;
extern const CompiledFilter kPtraceSentryFilter;
extern const CompiledFilter kGoferFilter;
extern const CompiledFilter kNetworkGoferFilter;

}  // namespace runsc
