// Writes compiled_filters.cc to standard output. Runs when the product is built; no part of it.

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "platform/seccomp/filter.h"
#include "runsc-cli/main/gofer_filter.h"
#include "runsc-cli/main/network_filter.h"
#include "runsc-cli/main/sentry_filter.h"

namespace runsc {
namespace {

using platform::seccomp::Filter;

void Print(const char* name, const Filter& filter) {
  printf("constexpr sock_filter k%sProgram[] = {\n", name);
  for (const sock_filter& each : platform::seccomp::Compile(filter)) {
    printf("    {%u, %u, %u, 0x%x},\n", unsigned{each.code}, unsigned{each.jt}, unsigned{each.jf},
           each.k);
  }
  printf("};\n");
}

void PrintDefinition(const char* name, const Filter& filter) {
  printf("const CompiledFilter k%sFilter{k%sProgram, %zu};\n", name, name,
         platform::seccomp::CountAllowed(filter));
}

int Main() {
  const struct {
    const char* name;
    Filter filter;
  } filters[] = {
      {"SystrapSentry", SentryFilter({.own_pid = 1, .ptrace_platform = false})},
      {"PtraceSentry", SentryFilter({.own_pid = 1, .ptrace_platform = true})},
      {"Gofer", GoferFilter()},
      {"NetworkGofer", NetworkGoferFilter()},
  };
  printf("// Made by compile_filters.\n\n#include \"runsc-cli/main/compiled_filters.h\"\n\n");
  printf("namespace runsc {\nnamespace {\n\n");
  for (const auto& [name, filter] : filters) Print(name, filter);
  printf("\n}  // namespace\n\n");
  for (const auto& [name, filter] : filters) PrintDefinition(name, filter);
  printf("\n}  // namespace runsc\n");
  return fflush(stdout) == 0 && ferror(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace runsc

int main() { return runsc::Main(); }
