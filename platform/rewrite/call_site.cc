#include "platform/rewrite/call_site.h"

#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "platform/rewrite/instruction.h"

namespace platform::rewrite {
namespace {

constexpr uint8_t kMovEax = 0xb8;
constexpr size_t kMovEaxBytes = 5;
constexpr size_t kMovRaxBytes = 7;
constexpr std::array<uint8_t, 3> kMovRax = {0x48, 0xc7, 0xc0};
constexpr std::array<uint8_t, 3> kJumpAbsolute = {0xff, 0x24, 0x25};
constexpr uint8_t kShortJump = 0xeb;
constexpr size_t kShortJumpBytes = 2;
constexpr int64_t kShortReach = 127;
constexpr uint64_t kFunctionAlignment = 16;
constexpr size_t kInstructionsMax = 128;

uint32_t Load32(const uint8_t* bytes) {
  uint32_t value = 0;
  memcpy(&value, bytes, sizeof(value));
  return value;
}

class SiteView {
 public:
  SiteView(const Window& window, uint64_t site) : window_(window), site_(site) {}

  bool Has(int64_t offset, size_t count) const {
    const uint64_t at = site_ + static_cast<uint64_t>(offset) - window_.start;
    return at <= window_.bytes.size() && count <= window_.bytes.size() - at;
  }
  std::span<const uint8_t> From(int64_t offset) const {
    return window_.bytes.subspan(site_ + static_cast<uint64_t>(offset) - window_.start);
  }

 private:
  const Window& window_;
  const uint64_t site_;
};

// Filler from `offset` to an aligned address: its length, 0 if it is none. What begins at an
// aligned address may be a function.
size_t PaddingAt(const SiteView& view, uint64_t site, int64_t offset) {
  if ((site + static_cast<uint64_t>(offset)) % kFunctionAlignment == 0) return 0;
  int64_t at = offset;
  while (view.Has(at, 1)) {
    const std::optional<Instruction> filler = Decode(view.From(at));
    if (!filler || !filler->is_nop) return 0;
    at += filler->length;
    const uint64_t end = site + static_cast<uint64_t>(at);
    if (end % kFunctionAlignment == 0) return static_cast<size_t>(at - offset);
    // One that crosses the boundary aligns nothing.
    if (end / kFunctionAlignment != (end - filler->length) / kFunctionAlignment) return 0;
  }
  return 0;
}

struct Padding {
  int64_t jump = 0;     // Where ours goes; 0: nowhere.
  uint8_t skipped = 0;  // See Plan.
};

// The place for a jump in filler that nothing runs into and nothing seen jumps into. Walks from the
// instruction after the call, so that every instruction's start is known.
Padding FindPadding(const SiteView& view, uint64_t site) {
  constexpr auto kSkip = static_cast<int64_t>(kShortJumpBytes);
  std::vector<int64_t> targets;
  std::vector<Padding> candidates;
  int64_t at = kSyscallBytes;
  for (size_t count = 0; count < kInstructionsMax && view.Has(at, 1); count++) {
    const std::optional<Instruction> instruction = Decode(view.From(at));
    if (!instruction) break;
    if (instruction->flow == Flow::kConditional || instruction->flow == Flow::kJump ||
        instruction->flow == Flow::kCall) {
      targets.push_back(at + instruction->target);
    }
    at += instruction->length;
    if (instruction->flow != Flow::kJump && instruction->flow != Flow::kLeave) continue;
    const size_t length = PaddingAt(view, site, at);
    if (length == 0) continue;
    // With room for it, a jump over ours in front: who comes there gets where he wants to.
    const bool skips = length >= kJumpBytes + kShortJumpBytes;
    const Padding padding{
        .jump = skips ? at + kSkip : at,
        .skipped = static_cast<uint8_t>(skips ? length - kShortJumpBytes : size_t{0})};
    if (length >= kJumpBytes && padding.jump - kSkip <= kShortReach) candidates.push_back(padding);
    at += static_cast<int64_t>(length);
  }
  for (const Padding& padding : candidates) {
    const int64_t from = padding.skipped == 0 ? padding.jump - 1 : padding.jump - kSkip;
    const int64_t to = padding.jump + static_cast<int64_t>(kJumpBytes);
    const bool entered = std::any_of(targets.begin(), targets.end(),
                                     [=](int64_t target) { return target > from && target < to; });
    if (!entered) return padding;
  }
  return {};
}

bool IsPrefixByte(uint8_t byte) {
  constexpr std::array<uint8_t, 11> kLegacy = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65,
                                               0x66, 0x67, 0xf0, 0xf2, 0xf3};
  return (byte & 0xf0) == 0x40 || std::find(kLegacy.begin(), kLegacy.end(), byte) != kLegacy.end();
}

// Could the bytes at [site + from, site) be the tail of a longer instruction that begins before?
// Every start is tried; one that swallows our start and yet ends at the site could be the truth.
bool IsTailOfAnother(const SiteView& view, int64_t from) {
  for (int64_t start = from - 1; start >= from - 11 && view.Has(start, 1); start--) {
    const std::optional<Instruction> other = Decode(view.From(start));
    if (other && start + other->length == 0) return true;
  }
  return false;
}

// `mov $n, %eax; syscall`, if that is certainly what it is.
bool PlanMove(const SiteView& view, uint64_t rax, Plan& plan) {
  constexpr auto kWide = static_cast<int64_t>(kMovRaxBytes);
  constexpr auto kNarrow = static_cast<int64_t>(kMovEaxBytes);
  if (view.Has(-kWide, kMovRaxBytes) &&
      memcmp(view.From(-kWide).data(), kMovRax.data(), kMovRax.size()) == 0) {
    const uint32_t number = Load32(&view.From(-kWide)[3]);
    const bool before = view.Has(-kWide - 1, 1) && !IsPrefixByte(view.From(-kWide - 1)[0]);
    if (before && rax == static_cast<uint64_t>(int64_t{static_cast<int32_t>(number)}) &&
        !IsTailOfAnother(view, -kWide)) {
      plan.form = Form::kWideMove;
      plan.number = number;
      return plan.loads_number = true;
    }
  }
  if (!view.Has(-kNarrow - 1, kMovEaxBytes + 1)) return false;
  const uint8_t* bytes = view.From(-kNarrow).data();
  if (bytes[0] != kMovEax || IsPrefixByte(bytes[-1]) || rax != Load32(bytes + 1)) return false;
  if (IsTailOfAnother(view, -kNarrow)) return false;
  plan.form = Form::kMove;
  plan.number = Load32(bytes + 1);
  return plan.loads_number = true;
}

Edit EditAt(const Window& window, uint64_t address, size_t length) {
  Edit edit;
  edit.address = address;
  edit.length = static_cast<uint8_t>(length);
  memcpy(edit.before.data(), &window.bytes[address - window.start], length);
  return edit;
}

void PutJump(uint8_t* out, size_t entry) {
  memcpy(out, kJumpAbsolute.data(), kJumpAbsolute.size());
  const auto address = static_cast<uint32_t>(EntryAddress(entry));
  memcpy(out + kJumpAbsolute.size(), &address, sizeof(address));
}

}  // namespace

const char* RefusalName(Refusal refusal) {
  switch (refusal) {
    case Refusal::kNone:
      return "none";
    case Refusal::kNotSyscall:
      return "not a syscall instruction any more";
    case Refusal::kSigreturn:
      return "rt_sigreturn";
    case Refusal::kNoRoom:
      return "no form fits";
    case Refusal::kWritable:
      return "writable code";
    case Refusal::kShared:
      return "shared code";
    case Refusal::kTableFull:
      return "table full";
    case Refusal::kPagesFull:
      return "too many pages";
    case Refusal::kOccupied:
      return "the table's place is taken";
    case Refusal::kMemory:
      return "no memory";
  }
  return "?";
}

Plan PlanSite(const Window& window, uint64_t site, uint64_t rax) {
  Plan plan;
  plan.site = site;
  const SiteView view(window, site);
  if (!view.Has(0, kSyscallBytes) || view.From(0)[0] != 0x0f || view.From(0)[1] != 0x05) {
    plan.refusal = Refusal::kNotSyscall;
    return plan;
  }
  if (static_cast<uint32_t>(rax) == SYS_rt_sigreturn) {
    plan.refusal = Refusal::kSigreturn;
    return plan;
  }
  if (const Padding padding = FindPadding(view, site); padding.jump != 0) {
    plan.form = Form::kPadding;
    plan.padding = site + static_cast<uint64_t>(padding.jump);
    plan.skipped = padding.skipped;
    return plan;
  }
  if (!PlanMove(view, rax, plan)) plan.refusal = Refusal::kNoRoom;
  return plan;
}

std::array<Edit, 2> MakeEdits(const Plan& plan, const Window& window, size_t entry) {
  std::array<Edit, 2> edits;
  if (plan.form != Form::kPadding) {
    const size_t before = plan.form == Form::kMove ? kMovEaxBytes : kMovRaxBytes;
    edits[0] = EditAt(window, plan.site - before, kJumpBytes);
    PutJump(edits[0].after.data(), entry);
    return edits;
  }
  edits[0] = EditAt(window, plan.site, kSyscallBytes);
  edits[0].after[0] = kShortJump;
  edits[0].after[1] = static_cast<uint8_t>(plan.padding - plan.return_address());
  const size_t skip = plan.skipped == 0 ? 0 : kShortJumpBytes;
  edits[1] = EditAt(window, plan.padding - skip, skip + kJumpBytes);
  if (plan.skipped != 0) {
    edits[1].after[0] = kShortJump;
    edits[1].after[1] = plan.skipped;
  }
  PutJump(edits[1].after.data() + skip, entry);
  return edits;
}

uint64_t Trampoline::rax(uint64_t old) const {
  if (!loads_number) return old;
  if (!wide) return number;
  return static_cast<uint64_t>(int64_t{static_cast<int32_t>(number)});
}

Trampoline TrampolineOf(const Plan& plan) {
  return {.return_address = plan.return_address(),
          .loads_number = plan.loads_number,
          .wide = plan.form == Form::kWideMove,
          .number = plan.number};
}

std::array<uint8_t, kEntryBytes> EntryCode(size_t index, const Trampoline& trampoline) {
  std::array<uint8_t, kEntryBytes> code;
  code.fill(0xcc);
  const uint64_t start = EntryAddress(index) + sizeof(uint64_t);
  memcpy(code.data(), &start, sizeof(start));
  uint8_t* at = &code[sizeof(start)];
  // The number: mov $n, %eax; or mov $n, %rax. Else nothing.
  if (trampoline.loads_number && trampoline.wide) {
    memcpy(at, kMovRax.data(), kMovRax.size());
    memcpy(at + kMovRax.size(), &trampoline.number, sizeof(trampoline.number));
    at += kMovRaxBytes;
  } else if (trampoline.loads_number) {
    *at = kMovEax;
    memcpy(at + 1, &trampoline.number, sizeof(trampoline.number));
    at += kMovEaxBytes;
  }
  at[0] = 0x48;  // movabs $return_address, %rcx
  at[1] = 0xb9;
  memcpy(at + 2, &trampoline.return_address, sizeof(trampoline.return_address));
  PutJump(at + 10, 0);
  return code;
}

std::array<uint8_t, kEntryBytes> FirstEntry(uint64_t syscall_entry) {
  std::array<uint8_t, kEntryBytes> code;
  code.fill(0xcc);
  memcpy(code.data(), &syscall_entry, sizeof(syscall_entry));
  return code;
}

std::optional<size_t> JumpTarget(std::span<const uint8_t> bytes) {
  if (bytes.size() < kJumpBytes ||
      memcmp(bytes.data(), kJumpAbsolute.data(), kJumpAbsolute.size()) != 0) {
    return std::nullopt;
  }
  const uint32_t address = Load32(&bytes[kJumpAbsolute.size()]);
  if (!InTable(address) || address % kEntryBytes != 0) return std::nullopt;
  return EntryIndex(address);
}

}  // namespace platform::rewrite
