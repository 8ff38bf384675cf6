// The tables of the sentry and the gofer. That they work is seen by running guests; here is what
// can be said about them as data.

#include <seccomp.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "catch2/catch.hpp"
#include "runsc-cli/main/compiled_filters.h"
#include "runsc-cli/main/gofer_filter.h"
#include "runsc-cli/main/network_filter.h"
#include "runsc-cli/main/sentry_filter.h"

namespace {

using platform::seccomp::CountAllowed;
using platform::seccomp::Filter;

TEST_CASE("every row has the number that belongs to its name", "[filters]") {
  for (const Filter& filter :
       {runsc::SentryFilter({}), runsc::GoferFilter(), runsc::NetworkGoferFilter()}) {
    for (const auto& row : filter.rows) {
      char* const name =
          seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, static_cast<int>(row.number));
      CAPTURE(row.number, filter.process);
      REQUIRE(name != nullptr);
      CHECK(std::string(name) == row.name);
      std::free(name);
      CHECK_FALSE(row.reason.empty());
    }
  }
}

TEST_CASE("the tables keep to their sizes and compile", "[filters]") {
  CHECK(CountAllowed(runsc::SentryFilter({.ptrace_platform = true})) <= 60);
  CHECK(CountAllowed(runsc::SentryFilter({.ptrace_platform = false})) <
        CountAllowed(runsc::SentryFilter({.ptrace_platform = true})));
  CHECK(CountAllowed(runsc::GoferFilter()) <= 35);
  CHECK(CountAllowed(runsc::NetworkGoferFilter()) <= 35);
  CHECK(!platform::seccomp::Compile(runsc::SentryFilter({})).empty());
  CHECK(!platform::seccomp::Compile(runsc::GoferFilter()).empty());
}

TEST_CASE("the compiled filters are those of the tables", "[filters]") {
  const struct {
    Filter table;
    const runsc::CompiledFilter& compiled;
  } pairs[] = {
      {runsc::SentryFilter({.ptrace_platform = false}), runsc::kSystrapSentryFilter},
      {runsc::SentryFilter({.ptrace_platform = true}), runsc::kPtraceSentryFilter},
      {runsc::GoferFilter(), runsc::kGoferFilter},
      {runsc::NetworkGoferFilter(), runsc::kNetworkGoferFilter},
  };
  for (const auto& [table, compiled] : pairs) {
    const std::vector<sock_filter> program = platform::seccomp::Compile(table);
    const auto same = [](const sock_filter& a, const sock_filter& b) {
      return a.code == b.code && a.jt == b.jt && a.jf == b.jf && a.k == b.k;
    };
    CHECK(std::equal(program.begin(), program.end(), compiled.program.begin(),
                     compiled.program.end(), same));
    CHECK(compiled.calls_allowed == CountAllowed(table));
  }
}

TEST_CASE("no table opens paths by name, starts programs, or hands over its violation handler",
          "[filters]") {
  for (const Filter& filter :
       {runsc::SentryFilter({}), runsc::GoferFilter(), runsc::NetworkGoferFilter()}) {
    for (const auto& row : filter.rows) {
      if (row.action != platform::seccomp::kAllow) continue;
      CAPTURE(row.name, filter.process);
      for (const int number :
           {SYS_open, SYS_openat, SYS_creat, SYS_execve, SYS_execveat, SYS_fork, SYS_vfork,
            SYS_seccomp, SYS_unshare, SYS_mount}) {
        CHECK(row.number != static_cast<uint32_t>(number));
      }
      // Making and naming sockets is what the network gofer is for.
      if (filter.process != "network gofer") {
        CHECK(row.number != SYS_socket);
        CHECK(row.number != SYS_connect);
      }
      if (row.number == SYS_rt_sigaction) CHECK(row.checks.size() == 1);
    }
  }
  for (const auto& row : runsc::SentryFilter({}).rows) CHECK(row.number != SYS_openat2);
}

}  // namespace
