#include "runsc-cli/main/help_tables.h"

#include <cstdio>
#include <set>
#include <span>

#include "platform/seccomp/filter.h"
#include "platform/stub/filter_table.h"
#include "runsc-cli/main/gofer_filter.h"
#include "runsc-cli/main/network_filter.h"
#include "runsc-cli/main/sentry_filter.h"
#include "syscalls/table.h"

namespace runsc {
namespace {

// The stub's rules are written for its own compiler (platform/stub/filter_table.h says why); same
// layout.
std::string DescribeStub(const char* process, std::span<const platform::FilterRule> rules,
                         const char* otherwise) {
  std::set<uint16_t> numbers;
  std::string rows;
  for (const platform::FilterRule& rule : rules) {
    numbers.insert(rule.number);
    char head[64];
    snprintf(head, sizeof(head), "  %4u %-18.*s", rule.number, static_cast<int>(rule.name.size()),
             rule.name.data());
    rows += head;
    if (!rule.args.empty()) rows += " [" + std::string(rule.args) + "]";
    rows += "  " + std::string(rule.reason) + "\n";
  }
  return std::string(process) + ": " + std::to_string(numbers.size()) +
         " system calls allowed, from the stub's own code only; any other: " + otherwise + "\n" +
         rows;
}

std::string FiltersText() {
  return platform::seccomp::Describe(SentryFilter({})) + "\n" +
         platform::seccomp::Describe(GoferFilter()) + "\n" +
         platform::seccomp::Describe(NetworkGoferFilter()) + "\n" +
         DescribeStub("stub-memory-thread", platform::StubProcessFilter(), "process killed") +
         "\n" +
         DescribeStub("stub-guest-thread", platform::StubGuestFilter(),
                      "SIGSYS, which makes it a system call of the guest");
}

const char* SupportName(syscalls::Support support) {
  switch (support) {
    case syscalls::Support::kUnknown:
      return "none";
    case syscalls::Support::kFull:
      return "full";
    case syscalls::Support::kPartial:
      return "partial";
    case syscalls::Support::kRefused:
      return "refused";
  }
  return "?";
}

std::string SyscallsText() {
  std::string text;
  size_t full = 0;
  size_t partial = 0;
  for (const syscalls::Row& row : syscalls::X8664()) {
    if (row.support == syscalls::Support::kUnknown) continue;
    full += row.support == syscalls::Support::kFull;
    partial += row.support == syscalls::Support::kPartial;
    char head[80];
    snprintf(head, sizeof(head), "%4u %-24.*s %-8s", row.number, static_cast<int>(row.name.size()),
             row.name.data(), SupportName(row.support));
    text += head;
    text += row.note;
    while (text.back() == ' ') text.pop_back();
    text += '\n';
  }
  char foot[80];
  snprintf(foot, sizeof(foot), "%zu full, %zu partial; a number without a line answers ENOSYS\n",
           full, partial);
  return text + foot;
}

}  // namespace

std::string HelpTable(std::string_view topic) {
  if (topic == "filters") return FiltersText();
  if (topic == "syscalls") return SyscallsText();
  return "";
}

}  // namespace runsc
