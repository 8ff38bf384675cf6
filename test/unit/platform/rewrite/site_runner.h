#pragma once

// Runs a rewritten call site in the test's own process: the table at its real place, with an entry
// of ours in place of the stub's that writes down what it finds.

#include <array>
#include <cstdint>
#include <span>

#include "platform/rewrite/call_site.h"

namespace test {

// In the order of the machine's numbers: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 ... r15; then
// flags.
struct SiteRegisters {
  std::array<uint64_t, 16> general{};
  uint64_t flags = 0;
};
inline constexpr size_t kRax = 0, kRcx = 1, kRsp = 4, kR11 = 11;

class SiteRunner {
 public:
  SiteRunner();
  ~SiteRunner();
  SiteRunner(const SiteRunner&) = delete;
  SiteRunner& operator=(const SiteRunner&) = delete;

  // Memory to put code at, with `address` modulo the page size in common.
  std::span<uint8_t> Place(uint64_t address, size_t length);
  void SetEntry(size_t index, const platform::rewrite::Trampoline& trampoline);
  // Jumps to `start` with these registers; what they are when the entry is reached. `*reached`
  // stays false if an instruction that does not exist came first; rip is then in `stopped_at`.
  SiteRegisters Run(uint64_t start, const SiteRegisters& registers, uint64_t* stopped_at = nullptr);

 private:
  uint8_t* table_ = nullptr;
  uint8_t* code_ = nullptr;
};

}  // namespace test
