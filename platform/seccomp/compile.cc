// From rows to BPF.
//
// The program runs at each system call that the kernel's allow-bitmap (Linux 5.11) cannot answer,
// so it searches: a binary tree over the numbers, then the checks of one number. Subtrees are
// complete (each path ends in a return) and position-independent, so a tree is the concatenation of
// its parts.

#include <linux/audit.h>
#include <linux/seccomp.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "platform/base/check.h"
#include "platform/seccomp/filter.h"

namespace platform::seccomp {
namespace {

using Code = std::vector<sock_filter>;

constexpr uint32_t kX32Bit = 0x40000000U;
// Jump distance that stands for "this row does not hold" until the row's length is known.
constexpr uint8_t kToFailure = 0xff;

sock_filter Statement(int code, uint32_t k) { return {static_cast<uint16_t>(code), 0, 0, k}; }
sock_filter Jump(int condition, uint32_t k, uint8_t if_true, uint8_t if_false) {
  return {static_cast<uint16_t>(BPF_JMP | BPF_K | condition), if_true, if_false, k};
}
sock_filter Load(size_t offset) {
  return Statement(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
}
sock_filter Return(Action action) { return Statement(BPF_RET | BPF_K, action.value); }

// Little endian: the low half comes first.
size_t LowOffset(const Check& check) {
  return offsetof(seccomp_data, args) + size_t{8} * check.argument;
}
uint32_t Low(uint64_t value) { return static_cast<uint32_t>(value); }
uint32_t High(uint64_t value) { return static_cast<uint32_t>(value >> 32); }

void Append(Code& code, const Code& more) { code.insert(code.end(), more.begin(), more.end()); }

// (word at `offset` & mask) == value, else failure.
void RequireWord(Code& code, size_t offset, uint32_t mask, uint32_t value) {
  if (mask == 0) {
    CHECK(value == 0);
    return;
  }
  code.push_back(Load(offset));
  if (mask != 0xffffffffU) code.push_back(Statement(BPF_ALU | BPF_AND | BPF_K, mask));
  code.push_back(Jump(BPF_JEQ, value, 0, kToFailure));
}

// The 64-bit word at `offset` <= maximum, else failure.
void RequireAtMost(Code& code, size_t offset, uint64_t maximum) {
  code.push_back(Load(offset + 4));
  if (High(maximum) == 0) {
    code.push_back(Jump(BPF_JEQ, 0, 0, kToFailure));
  } else {
    code.push_back(Jump(BPF_JGT, High(maximum), kToFailure, 0));
    code.push_back(Jump(BPF_JEQ, High(maximum), 0, 2));  // Smaller: the low half may be anything.
  }
  code.push_back(Load(offset));
  code.push_back(Jump(BPF_JGT, Low(maximum), kToFailure, 0));
}

// The 64-bit word at `offset` >= minimum, else failure.
void RequireAtLeast(Code& code, size_t offset, uint64_t minimum) {
  code.push_back(Load(offset + 4));
  code.push_back(Jump(BPF_JGE, High(minimum), 0, kToFailure));
  code.push_back(Jump(BPF_JEQ, High(minimum), 0, 2));  // Larger: the low half may be anything.
  code.push_back(Load(offset));
  code.push_back(Jump(BPF_JGE, Low(minimum), 0, kToFailure));
}

void RequireOneOf(Code& code, const Check& check) {
  CHECK(!check.values.empty() && check.values.size() <= Check::kOneOfMax);
  RequireWord(code, LowOffset(check) + 4, 0xffffffffU, 0);
  code.push_back(Load(LowOffset(check)));
  for (size_t i = 0; i < check.values.size(); ++i) {
    const size_t left = check.values.size() - 1 - i;
    code.push_back(Jump(BPF_JEQ, check.values[i], static_cast<uint8_t>(left),
                        left == 0 ? kToFailure : uint8_t{0}));
  }
}

void AppendCheck(Code& code, const Check& check) {
  CHECK(check.argument < 6);
  const size_t low = LowOffset(check);
  switch (check.kind) {
    case Check::Kind::kEquals:
      RequireWord(code, low, 0xffffffffU, Low(check.value));
      RequireWord(code, low + 4, 0xffffffffU, High(check.value));
      return;
    case Check::Kind::kEquals32:
      RequireWord(code, low, 0xffffffffU, Low(check.value));
      return;
    case Check::Kind::kNotEquals32:
      code.push_back(Load(low));
      code.push_back(Jump(BPF_JEQ, Low(check.value), kToFailure, 0));
      return;
    case Check::Kind::kMaskedEquals:
      RequireWord(code, low, Low(check.mask), Low(check.value));
      RequireWord(code, low + 4, High(check.mask), High(check.value));
      return;
    case Check::Kind::kOneOf:
      RequireOneOf(code, check);
      return;
    case Check::Kind::kAtMost:
      RequireAtMost(code, low, check.value);
      return;
    case Check::Kind::kCallerIn: {
      CHECK(check.value < check.limit);
      const size_t pointer = offsetof(seccomp_data, instruction_pointer);
      RequireAtLeast(code, pointer, check.value);
      RequireAtMost(code, pointer, check.limit - 1);
      return;
    }
  }
}

// One row: returns its action if all checks hold, else runs into what follows.
Code RowCode(const Row& row) {
  CHECK(!row.reason.empty());
  Code code;
  for (const Check& check : row.checks) AppendCheck(code, check);
  code.push_back(Return(row.action));
  CHECK(code.size() < kToFailure);
  for (size_t i = 0; i + 1 < code.size(); ++i) {
    if (BPF_CLASS(code[i].code) != BPF_JMP) continue;
    const auto distance = static_cast<uint8_t>(code.size() - 1 - i);
    if (code[i].jt == kToFailure) code[i].jt = distance;
    if (code[i].jf == kToFailure) code[i].jf = distance;
  }
  return code;
}

using Leaf = std::pair<uint32_t, Code>;

// Expects the system call's number in the accumulator.
Code TreeCode(std::span<const Leaf> leaves, Action otherwise) {
  if (leaves.empty()) return {Return(otherwise)};
  if (leaves.size() == 1) {
    Code code{Jump(BPF_JEQ, leaves[0].first, 1, 0), Return(otherwise)};
    Append(code, leaves[0].second);
    code.push_back(Return(otherwise));
    return code;
  }
  const size_t middle = leaves.size() / 2;
  const Code left = TreeCode(leaves.first(middle), otherwise);
  const Code right = TreeCode(leaves.subspan(middle), otherwise);
  Code code;
  if (left.size() < kToFailure) {
    code.push_back(Jump(BPF_JGE, leaves[middle].first, static_cast<uint8_t>(left.size()), 0));
  } else {
    code.push_back(Jump(BPF_JGE, leaves[middle].first, 0, 1));
    code.push_back(Statement(BPF_JMP | BPF_JA, static_cast<uint32_t>(left.size())));
  }
  Append(code, left);
  Append(code, right);
  return code;
}

}  // namespace

std::vector<sock_filter> Compile(const Filter& filter) {
  std::map<uint32_t, Code> by_number;
  for (const Row& row : filter.rows) {
    CHECK(row.number < kX32Bit);
    Append(by_number[row.number], RowCode(row));
  }
  const std::vector<Leaf> leaves(by_number.begin(), by_number.end());

  const bool otherwise_stops = filter.otherwise == kTrap || filter.otherwise == kKillProcess;
  const Action foreign = otherwise_stops ? filter.otherwise : kKillProcess;
  Code code{
      Load(offsetof(seccomp_data, arch)), Jump(BPF_JEQ, AUDIT_ARCH_X86_64, 1, 0), Return(foreign),
      Load(offsetof(seccomp_data, nr)),   Jump(BPF_JGE, kX32Bit, 0, 1),           Return(foreign),
  };
  Append(code, TreeCode(leaves, filter.otherwise));
  CHECK(code.size() <= kInstructionsMax);
  return code;
}

}  // namespace platform::seccomp
