// The forms of a rewritten call site, each on bytes as compilers and assemblers make them.

#include "platform/rewrite/call_site.h"

#include <sys/syscall.h>

#include <cstring>
#include <vector>

#include "catch2/catch.hpp"
#include "platform/rewrite/instruction.h"
#include "test/unit/platform/rewrite/site_runner.h"

namespace {

using namespace platform::rewrite;
using Bytes = std::vector<uint8_t>;

// So that `site` is where the code says, everything before it is single-byte nonsense that cannot
// begin a longer instruction.
constexpr uint64_t kAt = 0x401000;
constexpr uint8_t kPush = 0x50;

Bytes Join(const std::vector<Bytes>& parts) {
  Bytes all;
  for (const Bytes& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

const Bytes kSyscall = {0x0f, 0x05};
const Bytes kCmp = {0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff};
const Bytes kRet = {0xc3};
const Bytes kNop10 = {0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0};

// `before` ends at an address that makes what follows the syscall end at `end % 16`.
struct Case {
  Bytes before, after;
};

struct Planned {
  Bytes bytes;
  Window window;
  uint64_t site = 0;
  Plan plan;
};

Planned PlanOf(const Case& code, uint64_t rax, uint64_t site_alignment = 0) {
  Planned result;
  const size_t lead = 32 + (32 + site_alignment - code.before.size() % 16) % 16;
  result.bytes = Join({Bytes(lead, kPush), code.before, kSyscall, code.after});
  result.site = kAt + lead + code.before.size();
  result.window = {kAt, result.bytes};
  result.plan = PlanSite(result.window, result.site, rax);
  return result;
}

TEST_CASE("padding behind the function takes the jump", "[rewrite]") {
  // 2 + 6 + 1 bytes from an aligned site: 7 are left.
  const Bytes nop7 = {0x0f, 0x1f, 0x80, 0, 0, 0, 0};
  const Planned exact =
      PlanOf({{0x31, 0xc0}, Join({kCmp, kRet, nop7, Bytes(40, kPush)})}, SYS_read);
  REQUIRE(exact.plan.refusal == Refusal::kNone);
  CHECK(exact.plan.form == Form::kPadding);
  CHECK(exact.plan.padding == exact.site + 9);
  CHECK(exact.plan.skipped == 0);
  const auto edits = MakeEdits(exact.plan, exact.window, 5);
  CHECK(edits[0].address == exact.site);
  CHECK(edits[0].length == 2);
  CHECK(edits[0].after[0] == 0xeb);
  CHECK(edits[0].after[1] == 7);
  CHECK(edits[1].address == exact.plan.padding);
  CHECK(JumpTarget(std::span(edits[1].after).first(edits[1].length)) == 5u);

  const Planned skipped = PlanOf({{}, Join({kRet, kNop10, {0x0f, 0x1f, 0}, Bytes(40, kPush)})}, 39);
  REQUIRE(skipped.plan.form == Form::kPadding);
  CHECK(skipped.plan.padding == skipped.site + 5);
  CHECK(skipped.plan.skipped == 11);
}

TEST_CASE("filler that may be something else is left alone", "[rewrite]") {
  // Six bytes are too few.
  CHECK(
      PlanOf({{}, Join({kCmp, {0x90}, kRet, Bytes(6, 0x90), Bytes(64, kPush)})}, 39).plan.refusal ==
      Refusal::kNoRoom);
  // Code runs into it: an aligned loop.
  CHECK(
      PlanOf({{}, Join({{0x90}, {0x90, 0x90, 0x90}, kNop10, Bytes(64, kPush)})}, 39).plan.refusal ==
      Refusal::kNoRoom);
  // It does not end where a function begins.
  CHECK(PlanOf({{}, Join({kRet, kNop10, Bytes(64, kPush)})}, 39).plan.refusal == Refusal::kNoRoom);
  // It begins where a function may begin.
  CHECK(PlanOf({{}, Join({Bytes(13, kPush), kRet, Bytes(16, 0x90), Bytes(64, kPush)})}, 39)
            .plan.refusal == Refusal::kNoRoom);
  // A jump goes into it: jne to the middle of the filler.
  CHECK(PlanOf({{}, Join({{0x75, 5}, kRet, Bytes(11, 0x90), Bytes(64, kPush)})}, 39).plan.refusal ==
        Refusal::kNoRoom);
  // The same to its end is what jumps do.
  CHECK(PlanOf({{}, Join({{0x75, 12}, kRet, Bytes(11, 0x90), Bytes(64, kPush)})}, 39).plan.form ==
        Form::kPadding);
}

TEST_CASE("the filler may be at most a short jump away", "[rewrite]") {
  for (size_t distance = 100; distance < 160; distance++) {
    // Site aligned; ret as the last byte before the filler.
    if ((2 + distance) % 16 == 0) continue;
    const size_t room = 16 - (2 + distance) % 16;
    const Planned planned = PlanOf(
        {{}, Join({Bytes(distance - 1, kPush), kRet, Bytes(room, 0xcc), Bytes(64, kPush)})}, 39);
    CAPTURE(distance, room);
    const size_t jump = distance + (room >= 9 ? 2 : 0);
    CHECK((planned.plan.form == Form::kPadding && planned.plan.refusal == Refusal::kNone) ==
          (room >= 7 && jump <= 127 && distance < kBytesAfter - 20));
  }
}

TEST_CASE("mov to eax before the syscall takes the jump otherwise", "[rewrite]") {
  const Case code{{0xb8, 39, 0, 0, 0}, Bytes(200, kPush)};
  const Planned planned = PlanOf(code, 39);
  REQUIRE(planned.plan.refusal == Refusal::kNone);
  CHECK(planned.plan.form == Form::kMove);
  CHECK(planned.plan.number == 39);
  const auto edits = MakeEdits(planned.plan, planned.window, 2046);
  CHECK(edits[0].address == planned.site - 5);
  CHECK(edits[0].length == 7);
  CHECK(edits[0].after[5] == kNoSuchOpcode);
  CHECK(edits[1].length == 0);
  // The register holds something else: the instruction is not what it looks like.
  CHECK(PlanOf(code, 40).plan.refusal == Refusal::kNoRoom);
  CHECK(PlanOf(code, 39 + (uint64_t{1} << 32)).plan.refusal == Refusal::kNoRoom);
  // Other registers: r8d.
  CHECK(PlanOf({{0x41, 0xb8, 39, 0, 0, 0}, Bytes(200, kPush)}, 39).plan.refusal ==
        Refusal::kNoRoom);
  // movl $39, -0x48(%rbp); syscall
  CHECK(PlanOf({{0xc7, 0x45, 0xb8, 39, 0, 0, 0}, Bytes(200, kPush)}, 39).plan.refusal ==
        Refusal::kNoRoom);
}

TEST_CASE("mov to rax before the syscall, too", "[rewrite]") {
  const Planned planned = PlanOf({{0x48, 0xc7, 0xc0, 39, 0, 0, 0}, Bytes(200, kPush)}, 39);
  REQUIRE(planned.plan.form == Form::kWideMove);
  REQUIRE(planned.plan.refusal == Refusal::kNone);
  const auto edits = MakeEdits(planned.plan, planned.window, 1);
  CHECK(edits[0].address == planned.site - 7);
  CHECK(edits[0].length == 7);
}

TEST_CASE("what is not to be rewritten", "[rewrite]") {
  const Bytes nop7 = {0x0f, 0x1f, 0x80, 0, 0, 0, 0};
  const Case good{{0x31, 0xc0}, Join({kCmp, kRet, nop7, Bytes(40, kPush)})};
  CHECK(PlanOf(good, SYS_rt_sigreturn).plan.refusal == Refusal::kSigreturn);
  CHECK(PlanOf(good, SYS_rt_sigreturn + (uint64_t{1} << 32)).plan.refusal == Refusal::kSigreturn);
  Planned moved = PlanOf(good, 0);
  CHECK(PlanSite(moved.window, moved.site + 1, 0).refusal == Refusal::kNotSyscall);
  CHECK(PlanSite(moved.window, kAt + moved.bytes.size() - 1, 0).refusal == Refusal::kNotSyscall);
  CHECK(PlanSite(moved.window, kAt - 1, 0).refusal == Refusal::kNotSyscall);
}

TEST_CASE("no bytes make the planner read outside of its window", "[rewrite]") {
  uint64_t state = 1;
  for (int round = 0; round < 200000; round++) {
    Bytes bytes(1 + state % 180);
    for (uint8_t& byte : bytes) {
      state = state * 6364136223846793005 + 1442695040888963407;
      byte = static_cast<uint8_t>(state >> 56);
    }
    const size_t site = state % bytes.size();
    bytes[site] = 0x0f;
    if (site + 1 < bytes.size()) bytes[site + 1] = 0x05;
    if (round % 2 == 0 && site >= 5) bytes[site - 5] = 0xb8;
    uint64_t rax = 0;
    if (site >= 5) memcpy(&rax, &bytes[site - 4], 4);
    const Window window{kAt, bytes};
    const Plan plan = PlanSite(window, kAt + site, rax);
    if (plan.refusal != Refusal::kNone) continue;
    for (const Edit& edit : MakeEdits(plan, window, 7)) {
      if (edit.length == 0) continue;
      REQUIRE(edit.address >= kAt);
      REQUIRE(edit.address + edit.length <= kAt + bytes.size());
      REQUIRE(memcmp(edit.before.data(), &bytes[edit.address - kAt], edit.length) == 0);
    }
  }
}

TEST_CASE("a rewritten site arrives at the entry with the guest's registers", "[rewrite]") {
  test::SiteRunner runner;
  const Bytes nop7 = {0x0f, 0x1f, 0x80, 0, 0, 0, 0};
  const Case code = GENERATE_COPY(Case{{0x31, 0xc0}, Join({kCmp, kRet, nop7, Bytes(40, kPush)})},
                                  Case{{}, Join({kRet, Bytes(13, 0xcc), Bytes(40, kPush)})},
                                  Case{{0xb8, 39, 0, 0, 0}, Bytes(200, kPush)},
                                  Case{{0x48, 0xc7, 0xc0, 39, 0, 0, 0}, Bytes(200, kPush)});
  const Planned sample = PlanOf(code, 39);
  std::span<uint8_t> place = runner.Place(kAt, sample.bytes.size());
  memcpy(place.data(), sample.bytes.data(), place.size());
  const auto base = reinterpret_cast<uint64_t>(place.data());
  const Window window{base, place};
  const uint64_t site = base + (sample.site - kAt);
  const Plan plan = PlanSite(window, site, 39);
  REQUIRE(plan.refusal == Refusal::kNone);
  runner.SetEntry(3, TrampolineOf(plan));
  for (const Edit& edit : MakeEdits(plan, window, 3)) {
    memcpy(place.data() + (edit.address - base), edit.after.data(), edit.length);
  }
  test::SiteRegisters registers;
  for (size_t i = 0; i < registers.general.size(); i++) {
    registers.general[i] = 0x1111111111111111 * (i + 1);
  }
  registers.general[test::kRax] = plan.loads_number ? 0xdeadbeefdeadbeef : 39;
  registers.flags = 0x202 | 0x8d5;
  const uint64_t start = plan.loads_number ? site - code.before.size() : site;
  const test::SiteRegisters seen = runner.Run(start, registers);
  test::SiteRegisters expected = registers;
  expected.general[test::kRax] = 39;
  expected.general[test::kRcx] = site + 2;
  CHECK(seen.general == expected.general);
  CHECK((seen.flags & ~uint64_t{0x10000}) == expected.flags);
  if (plan.form == Form::kMove) {
    uint64_t stopped_at = 0;
    runner.Run(site, registers, &stopped_at);
    CHECK(stopped_at == site);
  }
}

TEST_CASE("instructions have the lengths that the manuals say", "[rewrite]") {
  struct Sample {
    Bytes bytes;
    int length;  // 0: refused.
  };
  const std::vector<Sample> samples = {
      {{0x90}, 1},
      {{0xf3, 0x0f, 0x1e, 0xfa}, 4},                           // endbr64
      {{0x48, 0x8b, 0x05, 1, 2, 3, 4}, 7},                     // mov disp(%rip), %rax
      {{0x8b, 0x44, 0x24, 0x08}, 4},                           // mov 8(%rsp), %eax
      {{0x48, 0xc7, 0x84, 0x24, 1, 2, 3, 4, 5, 6, 7, 8}, 12},  // movq $, disp32(%rsp)
      {{0x66, 0xc7, 0x00, 1, 2}, 5},                           // movw $, (%rax)
      {{0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8}, 10},              // movabs
      {{0x66, 0xb8, 1, 2}, 4},                                 // mov $, %ax
      {{0xf6, 0x04, 0x25, 1, 2, 3, 4, 5}, 8},                  // testb $, disp32
      {{0xf7, 0xd8}, 2},                                       // neg
      {{0xc8, 1, 2, 3}, 4},                                    // enter
      {{0xa1, 1, 2, 3, 4, 5, 6, 7, 8}, 9},                     // movabs
      {{0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0}, 9},         // mov %fs:0, %rax
      {{0xc5, 0xf8, 0x77}, 3},                                 // vzeroupper
      {{0xc4, 0xe3, 0x7d, 0x39, 0xc1, 0x01}, 6},               // vextracti128
      {{0x62, 0xf1, 0xfe, 0x48, 0x6f, 0x47, 0x01}, 7},         // vmovdqu64 64(%rdi)
      {{0x62, 0xf3, 0x7d, 0x48, 0x3a, 0xc1, 0x01}, 7},         // vinserti32x8
      {{0x06}, 0},
      {{0x66, 0xe9, 0, 0, 0, 0}, 0},  // The two makers disagree.
      {{0x48, 0x66, 0x90}, 0},
      {{0x8f, 0xe8, 0x78, 0, 0, 0}, 0},  // XOP
      {{0x0f}, 0},
      {{0xe9, 0, 0, 0}, 0},
      {Bytes(16, 0x66), 0},
  };
  for (const Sample& sample : samples) {
    const auto decoded = Decode(sample.bytes);
    CAPTURE(sample.bytes);
    CHECK((decoded ? decoded->length : 0) == sample.length);
  }
  CHECK(Decode(Bytes{0x75, 0xfe})->flow == Flow::kConditional);
  CHECK(Decode(Bytes{0x75, 0xfe})->target == 0);
  CHECK(Decode(Bytes{0x0f, 0x85, 0xff, 0xff, 0xff, 0xff})->target == 5);
  CHECK(Decode(Bytes{0xe8, 1, 0, 0, 0})->flow == Flow::kCall);
  CHECK(Decode(Bytes{0xff, 0x25, 0, 0, 0, 0})->flow == Flow::kLeave);
  CHECK(Decode(Bytes{0xff, 0xd0})->flow == Flow::kCallFar);
  CHECK(Decode(Bytes{0xf3, 0xc3})->flow == Flow::kLeave);
}

}  // namespace
