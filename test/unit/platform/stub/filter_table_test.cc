#include "platform/stub/filter_table.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "platform/stub/layout.h"
#include "platform/stub/stub_calls.h"

// Last: it has a CHECK of its own.
#include "catch2/catch.hpp"

namespace {

using platform::CompileFilter;
using platform::FilterRule;

constexpr uint64_t kTextEnd = STUB_TEXT + STUB_TEXT_BYTES;

// What the kernel would decide; knows the instructions that CompileFilter uses.
uint32_t Run(const std::vector<sock_filter>& program, const seccomp_data& data) {
  uint32_t accumulator = 0;
  for (size_t at = 0;; at++) {
    const sock_filter& step = program.at(at);
    switch (step.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        memcpy(&accumulator, reinterpret_cast<const char*>(&data) + step.k, sizeof(accumulator));
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        accumulator &= step.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        at += accumulator == step.k ? step.jt : step.jf;
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        at += accumulator >= step.k ? step.jt : step.jf;
        break;
      case BPF_RET | BPF_K:
        return step.k;
      default:
        FAIL("unknown instruction");
    }
  }
}

seccomp_data Call(int number, std::initializer_list<uint64_t> args = {}) {
  seccomp_data data{};
  data.nr = number;
  data.arch = AUDIT_ARCH_X86_64;
  data.instruction_pointer = STUB_TEXT + 16;
  std::copy(args.begin(), args.end(), data.args);
  return data;
}

std::set<uint16_t> Numbers(std::span<const FilterRule> rules) {
  std::set<uint16_t> numbers;
  for (const FilterRule& rule : rules) numbers.insert(rule.number);
  return numbers;
}

TEST_CASE("guest threads may make at most six system calls, all of them in the outer filter too",
          "[stub][filter]") {
  CHECK(Numbers(platform::StubGuestFilter()).size() <= 6);
  for (const FilterRule& rule : platform::StubGuestFilter()) {
    CAPTURE(rule.name);
    CHECK_FALSE(rule.reason.empty());
    CHECK(std::any_of(platform::StubProcessFilter().begin(), platform::StubProcessFilter().end(),
                      [&](const FilterRule& other) {
                        return other.number == rule.number && other.args == rule.args;
                      }));
  }
}

TEST_CASE("a rule wants its arguments, the stub's text and the calling convention",
          "[stub][filter]") {
  const auto program = CompileFilter(platform::StubProcessFilter(), STUB_TEXT, kTextEnd);
  const uint64_t shared = MAP_FIXED | MAP_SHARED;
  seccomp_data map = Call(SYS_mmap, {0x10000, 4096, PROT_READ, shared, 3, 0});
  CHECK(Run(program, map) == SECCOMP_RET_ALLOW);
  map.args[3] = shared | MAP_POPULATE;
  CHECK(Run(program, map) == SECCOMP_RET_ALLOW);
  for (uint64_t flags :
       {uint64_t{MAP_SHARED}, shared | MAP_ANONYMOUS, shared | (uint64_t{1} << 32)}) {
    map.args[3] = flags;
    CHECK(Run(program, map) == SECCOMP_RET_TRAP);
  }
  map.args[3] = shared;
  map.args[2] = 8;
  CHECK(Run(program, map) == SECCOMP_RET_TRAP);
  map.args[2] = PROT_READ;
  map.arch = AUDIT_ARCH_I386;
  CHECK(Run(program, map) == SECCOMP_RET_TRAP);
  map.arch = AUDIT_ARCH_X86_64;
  for (uint64_t ip :
       {uint64_t{0x400002}, uint64_t{STUB_TEXT - 1}, kTextEnd,
        uint64_t{STUB_TEXT} + (uint64_t{1} << 32), uint64_t{STUB_TEXT & 0xffffffff}}) {
    map.instruction_pointer = ip;
    CHECK(Run(program, map) == SECCOMP_RET_TRAP);
  }
  map.instruction_pointer = kTextEnd - 1;
  CHECK(Run(program, map) == SECCOMP_RET_ALLOW);
}

TEST_CASE("clone makes guest threads and stub processes, nothing else", "[stub][filter]") {
  const auto program = CompileFilter(platform::StubProcessFilter(), STUB_TEXT, kTextEnd);
  CHECK(Run(program, Call(SYS_clone, {platform::kCloneThread})) == SECCOMP_RET_ALLOW);
  CHECK(Run(program, Call(SYS_clone, {platform::kCloneProcess})) == SECCOMP_RET_ALLOW);
  CHECK(Run(program, Call(SYS_clone, {platform::kCloneThread | CLONE_NEWUSER})) ==
        SECCOMP_RET_TRAP);
  CHECK(Run(program, Call(SYS_clone, {SIGCHLD})) == SECCOMP_RET_TRAP);
}

TEST_CASE("the guest's filter lets nothing through but waiting and returning", "[stub][filter]") {
  const auto program = CompileFilter(platform::StubGuestFilter(), STUB_TEXT, kTextEnd);
  const std::set<uint16_t> allowed = Numbers(platform::StubGuestFilter());
  for (int number = -1; number < 1024; number++) {
    const uint32_t verdict = Run(program, Call(number));
    const bool listed = number >= 0 && allowed.count(static_cast<uint16_t>(number)) != 0;
    CAPTURE(number);
    CHECK((verdict == SECCOMP_RET_ALLOW) == listed);
    CHECK((verdict == SECCOMP_RET_ALLOW || verdict == SECCOMP_RET_TRAP));
  }
  for (uint64_t op = 2; op < 16; op++) {  // All futex operations but FUTEX_WAIT and FUTEX_WAKE.
    CHECK(Run(program, Call(SYS_futex, {0, op})) == SECCOMP_RET_TRAP);
  }
}

}  // namespace
