#include "platform/seccomp/filter.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <set>

#include "platform/base/check.h"

namespace platform::seccomp {
namespace {

uint8_t ArgumentIndex(int argument) {
  CHECK(argument >= 0 && argument < 6);
  return static_cast<uint8_t>(argument);
}

std::string Hex(uint64_t value) {
  char text[24];
  snprintf(text, sizeof(text), value < 10 ? "%llu" : "0x%llx",
           static_cast<unsigned long long>(value));
  return text;
}

std::string DescribeCheck(const Check& check) {
  const std::string argument = "a" + std::to_string(check.argument);
  switch (check.kind) {
    case Check::Kind::kEquals:
    case Check::Kind::kEquals32:
      return argument + " = " + Hex(check.value);
    case Check::Kind::kNotEquals32:
      return argument + " != " + Hex(check.value);
    case Check::Kind::kMaskedEquals:
      if (check.value == 0 && (check.mask >> 63) != 0)
        return argument + " within " + Hex(~check.mask);
      if (check.value == 0) return argument + " without " + Hex(check.mask);
      return argument + " & " + Hex(check.mask) + " = " + Hex(check.value);
    case Check::Kind::kOneOf: {
      std::string text = argument + " in {";
      for (size_t i = 0; i < check.values.size(); ++i) {
        if (i != 0) text += ' ';
        text += Hex(check.values[i]);
      }
      return text + "}";
    }
    case Check::Kind::kAtMost:
      return argument + " <= " + Hex(check.value);
    case Check::Kind::kCallerIn:
      return "caller in [" + Hex(check.value) + ", " + Hex(check.limit) + ")";
  }
  return "?";
}

std::string DescribeAction(Action action) {
  if (action == kAllow) return "";
  if (action == kTrap) return "SIGSYS";
  if (action == kKillProcess) return "process killed";
  return "fails with errno " + std::to_string(action.value & 0xfffU);
}

}  // namespace

Check Equals(int argument, uint64_t value) {
  return {.kind = Check::Kind::kEquals,
          .argument = ArgumentIndex(argument),
          .value = value,
          .values = {}};
}
Check Equals32(int argument, uint32_t value) {
  return {.kind = Check::Kind::kEquals32,
          .argument = ArgumentIndex(argument),
          .value = value,
          .values = {}};
}
Check NotEquals32(int argument, uint32_t value) {
  return {.kind = Check::Kind::kNotEquals32,
          .argument = ArgumentIndex(argument),
          .value = value,
          .values = {}};
}
Check MaskedEquals(int argument, uint64_t mask, uint64_t value) {
  CHECK((value & ~mask) == 0);
  return {.kind = Check::Kind::kMaskedEquals,
          .argument = ArgumentIndex(argument),
          .value = value,
          .mask = mask,
          .values = {}};
}
Check OneOf(int argument, std::vector<uint32_t> values) {
  return {.kind = Check::Kind::kOneOf,
          .argument = ArgumentIndex(argument),
          .values = std::move(values)};
}
Check AtMost(int argument, uint64_t maximum) {
  return {.kind = Check::Kind::kAtMost,
          .argument = ArgumentIndex(argument),
          .value = maximum,
          .values = {}};
}
Check CallerIn(uint64_t begin, uint64_t end) {
  return {.kind = Check::Kind::kCallerIn, .value = begin, .limit = end, .values = {}};
}

size_t CountAllowed(const Filter& filter) {
  std::set<uint32_t> numbers;
  for (const Row& row : filter.rows) {
    if (row.action == kAllow) numbers.insert(row.number);
  }
  return numbers.size();
}

std::string Describe(const Filter& filter) {
  std::string text = std::string(filter.process) + ": " + std::to_string(CountAllowed(filter)) +
                     " system calls allowed; any other: " +
                     (filter.otherwise == kAllow ? "allowed" : DescribeAction(filter.otherwise)) +
                     "\n";
  std::vector<const Row*> rows;
  for (const Row& row : filter.rows) rows.push_back(&row);
  // Alternatives stay in the order in which they are tried.
  std::sort(rows.begin(), rows.end(), [](const Row* a, const Row* b) {
    return a->number != b->number ? a->number < b->number : a < b;
  });
  for (const Row* row : rows) {
    std::string conditions;
    for (const Check& check : row->checks) {
      if (!conditions.empty()) conditions += ", ";
      conditions += DescribeCheck(check);
    }
    if (row->action != kAllow) {
      conditions += conditions.empty() ? "" : ": ";
      conditions += DescribeAction(row->action);
    }
    char head[64];
    snprintf(head, sizeof(head), "  %4u %-18.*s", row->number, static_cast<int>(row->name.size()),
             row->name.data());
    text += head;
    if (!conditions.empty()) text += " [" + conditions + "]";
    text += "  " + std::string(row->reason) + "\n";
  }
  return text;
}

base::Result<void> Install(std::span<const sock_filter> program) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return base::LastErrno();
  // The kernel only reads the program; the ABI's pointer is not const.
  const sock_fprog description{static_cast<unsigned short>(program.size()),
                               const_cast<sock_filter*>(program.data())};
  const long result =
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &description);
  if (result < 0) return base::LastErrno();
  // A positive result names a thread that has a filter of its own.
  if (result > 0) return base::Errno(EBUSY);
  return {};
}

}  // namespace platform::seccomp
