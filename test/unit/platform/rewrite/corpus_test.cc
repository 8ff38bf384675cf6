// The rewriter over every system call of real programs: those named in RAVELIN_CORPUS (colons
// between them), else the C library, the loader and a shell; see platform/rewrite/README.md for all
// of /usr. objdump is the oracle for where instructions begin, how long they are and where jumps
// go; the CPU for what the rewritten bytes do.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "catch2/catch.hpp"
#include "platform/rewrite/call_site.h"
#include "platform/rewrite/instruction.h"
#include "test/unit/platform/rewrite/site_runner.h"

namespace {

using namespace platform::rewrite;

struct Line {
  uint64_t address = 0;
  std::vector<uint8_t> bytes;
  std::string text;
  bool is(const char* name) const {
    return text == name || text.rfind(std::string(name) + " ", 0) == 0;
  }
  bool is_filler() const {
    for (const char* word : {"nop", "data16", "cs", "xchg   %ax,%ax", "int3"}) {
      if (text.rfind(word, 0) == 0) return true;
    }
    return false;
  }
};

struct Code {
  std::vector<Line> lines;
  std::set<uint64_t> targets;  // Of direct jumps and calls, and where symbols are.
};

int Hex(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

// "  401000:\t0f 05                \tsyscall"; "0000000000401000 <name>:"
void ParseLine(const std::string& line, Code& code) {
  if (line.size() > 18 && line[0] != ' ' && line[17] == '<') {
    code.targets.insert(strtoull(line.c_str(), nullptr, 16));
    return;
  }
  const size_t first = line.find(":\t");
  if (first == std::string::npos || line[0] != ' ') return;
  const size_t second = line.find('\t', first + 2);
  Line parsed;
  parsed.address = strtoull(line.c_str(), nullptr, 16);
  const size_t end = second == std::string::npos ? line.size() : second;
  for (size_t i = first + 2; i + 1 < end && line[i] != ' '; i += 3) {
    parsed.bytes.push_back(static_cast<uint8_t>(Hex(line[i]) << 4 | Hex(line[i + 1])));
  }
  if (second != std::string::npos) parsed.text = line.substr(second + 1);
  while (!parsed.text.empty() && parsed.text.back() == ' ') parsed.text.pop_back();
  const bool jumps = parsed.text[0] == 'j' || parsed.is("call") || parsed.is("bnd jmp") ||
                     parsed.is("loop") || parsed.text.rfind("xbegin", 0) == 0;

  if (jumps && parsed.text.find('*') == std::string::npos) {
    const size_t at = parsed.text.find_first_of("0123456789abcdef", parsed.text.find(' '));

    if (at != std::string::npos) {
      code.targets.insert(strtoull(parsed.text.c_str() + at, nullptr, 16));
    }
  }
  code.lines.push_back(std::move(parsed));
}

Code Disassemble(const std::string& path) {
  Code code;
  const std::string command = "objdump -d -w '" + path + "' 2>/dev/null";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), &pclose);
  REQUIRE(pipe != nullptr);
  std::array<char, 4096> line;
  while (fgets(line.data(), line.size(), pipe.get()) != nullptr) {
    std::string text(line.data());
    while (!text.empty() && text.back() == '\n') text.pop_back();
    ParseLine(text, code);
  }
  return code;
}

struct Tally {
  uint64_t instructions = 0, undecoded = 0, sites = 0;
  std::map<std::string, uint64_t> outcome;
};

void CheckLengths(const Code& code, Tally& tally) {
  for (const Line& line : code.lines) {
    if (line.text.find("(bad)") != std::string::npos || line.bytes.empty()) continue;
    // objdump takes prefixes, and FWAIT, for instructions of their own where they change nothing.
    const std::optional<Instruction> decoded = Decode(line.bytes);
    tally.instructions++;
    if (!decoded) {
      tally.undecoded++;
      continue;
    }
    if (decoded->length == line.bytes.size()) continue;
    if (line.bytes[0] == 0x9b) continue;
    CAPTURE(line.address, line.text);
    CHECK(decoded->length == line.bytes.size());
  }
}

// The bytes around line `index` as far as they are without a gap.
std::vector<uint8_t> Around(const Code& code, size_t index, uint64_t* start) {
  size_t from = index, to = index;
  const uint64_t site = code.lines[index].address;
  const auto adjoins = [&](size_t i) {
    return code.lines[i].address + code.lines[i].bytes.size() == code.lines[i + 1].address;
  };
  while (from > 0 && site - code.lines[from].address < kBytesBefore && adjoins(from - 1)) from--;
  while (to + 1 < code.lines.size() && code.lines[to].address - site < kBytesAfter && adjoins(to)) {
    to++;
  }
  std::vector<uint8_t> bytes;
  for (size_t i = from; i <= to; i++) {
    bytes.insert(bytes.end(), code.lines[i].bytes.begin(), code.lines[i].bytes.end());
  }
  *start = code.lines[from].address;
  return bytes;
}

size_t LineAt(const Code& code, uint64_t address) {
  const auto it = std::lower_bound(code.lines.begin(), code.lines.end(), address,
                                   [](const Line& line, uint64_t at) { return line.address < at; });
  REQUIRE(it != code.lines.end());
  CHECK(it->address == address);  // An instruction begins there.
  return static_cast<size_t>(it - code.lines.begin());
}

void CheckEdits(const Code& code, const Plan& plan, std::span<const Edit, 2> edits) {
  // Nothing jumps into what is replaced, but to its start; in kMove also to the syscall.
  for (const Edit& edit : edits) {
    if (edit.length == 0) continue;
    for (auto it = code.targets.upper_bound(edit.address);
         it != code.targets.end() && *it < edit.address + edit.length; ++it) {
      CAPTURE(edit.address, *it);
      CHECK((plan.form == Form::kMove && *it == plan.site));
    }
    LineAt(code, edit.address);
  }
  if (plan.form != Form::kPadding) return;
  // Only filler is replaced, behind an instruction that does not go on to it.
  CHECK((plan.skipped != 0 || code.targets.count(plan.padding) == 0));
  const size_t first = LineAt(code, edits[1].address);
  for (size_t i = first; code.lines[i].address < edits[1].address + edits[1].length; i++) {
    CAPTURE(code.lines[i].address, code.lines[i].text);
    CHECK(code.lines[i].is_filler());
  }
  const std::string& before = code.lines[first - 1].text;
  CAPTURE(before);
  const bool leaves = before.find("ret") != std::string::npos ||
                      before.find("jmp") != std::string::npos || before == "ud2" ||
                      before == "hlt" || before == "int3";
  CHECK(leaves);
}

// The same bytes at another place, rewritten there, run.
void RunRewritten(test::SiteRunner& runner, const Plan& original, std::vector<uint8_t> bytes,
                  uint64_t start, uint64_t rax) {
  std::span<uint8_t> place = runner.Place(start, bytes.size());
  memcpy(place.data(), bytes.data(), bytes.size());
  const auto base = reinterpret_cast<uint64_t>(place.data());
  const uint64_t site = base + (original.site - start);
  const Window window{base, place};
  const Plan plan = PlanSite(window, site, rax);
  CHECK(plan.refusal == original.refusal);
  CHECK(plan.form == original.form);
  runner.SetEntry(9, TrampolineOf(plan));
  for (const Edit& edit : MakeEdits(plan, window, 9)) {
    memcpy(place.data() + (edit.address - base), edit.after.data(), edit.length);
  }
  test::SiteRegisters registers;
  for (size_t i = 0; i < registers.general.size(); i++) {
    registers.general[i] = 0x0123456789abcdef * (i + 3);
  }
  registers.flags = 0x202 | 0x8d5;
  uint64_t from = site;
  if (plan.form == Form::kMove) from -= 5;
  if (plan.form == Form::kWideMove) from -= 7;
  if (plan.form == Form::kPadding) registers.general[test::kRax] = rax;
  const test::SiteRegisters seen = runner.Run(from, registers);
  test::SiteRegisters expected = registers;
  expected.general[test::kRax] = rax;
  expected.general[test::kRcx] = site + kSyscallBytes;
  CHECK(seen.general == expected.general);
  CHECK((seen.flags & ~uint64_t{0x10000}) == expected.flags);
}

void CheckFile(const std::string& path, test::SiteRunner& runner, Tally& tally) {
  const Code code = Disassemble(path);
  CheckLengths(code, tally);
  for (size_t i = 1; i < code.lines.size(); i++) {
    if (!code.lines[i].is("syscall")) continue;
    tally.sites++;
    uint64_t start = 0;
    const std::vector<uint8_t> bytes = Around(code, i, &start);
    // What rax would be: the number in the instruction before it, if there is one.
    uint64_t rax = 39;
    const std::string& before = code.lines[i - 1].text;
    unsigned immediate = 0;
    if (sscanf(before.c_str(), "mov $%x,%%eax", &immediate) == 1 ||
        sscanf(before.c_str(), "mov $%x,%%rax", &immediate) == 1) {
      rax = immediate;
    }
    const Window window{start, bytes};
    const Plan plan = PlanSite(window, code.lines[i].address, rax);
    CAPTURE(path, code.lines[i].address, before);
    if (plan.refusal != Refusal::kNone) {
      tally.outcome[RefusalName(plan.refusal)]++;
      continue;
    }
    tally.outcome[plan.form == Form::kPadding ? "padding"
                  : plan.form == Form::kMove  ? "mov to eax"
                                              : "mov to rax"]++;
    const auto edits = MakeEdits(plan, window, 9);
    CheckEdits(code, plan, edits);
    RunRewritten(runner, plan, bytes, start, rax);
  }
}

TEST_CASE("every system call of real programs is rewritten rightly or left alone", "[rewrite]") {
  const char* given = getenv("RAVELIN_CORPUS");
  std::istringstream corpus(given != nullptr
                                ? given
                                : "/lib/x86_64-linux-gnu/libc.so.6:/lib64/ld-linux-x86-64.so.2:"
                                  "/lib/x86_64-linux-musl/libc.so:/bin/bash");
  test::SiteRunner runner;
  Tally tally;
  std::string path;
  while (std::getline(corpus, path, ':')) {
    if (std::ifstream(path).good()) CheckFile(path, runner, tally);
  }
  std::ostringstream report;
  report << tally.instructions << " instructions, " << tally.undecoded << " not decoded, "
         << tally.sites << " system calls:";
  for (const auto& [outcome, count] : tally.outcome)
    report << " " << outcome << " " << count << ";";
  WARN(report.str());
  CHECK(tally.instructions > 0);
}

}  // namespace
