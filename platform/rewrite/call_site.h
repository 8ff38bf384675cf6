#pragma once

// How one `syscall` instruction becomes a jump: pure functions on bytes. README.md says why these
// forms.
//
// Each rewritten site has an entry in the table at kTableStart of its address space: the address of
// a trampoline and the trampoline. A site reaches it by `jmp *[entry]`, 7 bytes wherever it stands:
//
//   kPadding    syscall            ->  jmp padding (2 bytes)
//               ret; 7+ of padding ->  ret; jmp *[entry]
//   kMove       mov $n, %eax       ->  jmp *[entry]; the trampoline loads eax. The entry's address
//   is
//               syscall                such that where the `syscall` was there is an opcode that
//               does
//                                      not exist (06), so that whoever comes to that address, by a
//                                      jump, after a signal, to restart the call, makes the call
//                                      too.
//   kWideMove   mov $n, %rax       ->  jmp *[entry]; the `syscall` after it stays as it is.
//               syscall

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace platform::rewrite {

// The table. Byte 2 of its addresses is an opcode that does not exist in 64-bit mode.
inline constexpr uint64_t kTableStart = 0x60000;
inline constexpr uint64_t kTableEnd = 0x70000;
inline constexpr uint64_t kEntryBytes = 32;
// Entry 0 holds the address of the stub's entry.
inline constexpr size_t kEntriesMax = (kTableEnd - kTableStart) / kEntryBytes;
inline constexpr uint8_t kNoSuchOpcode = 0x06;

constexpr uint64_t EntryAddress(size_t index) { return kTableStart + index * kEntryBytes; }
constexpr bool InTable(uint64_t address) { return address - kTableStart < kTableEnd - kTableStart; }
constexpr size_t EntryIndex(uint64_t address) { return (address - kTableStart) / kEntryBytes; }

inline constexpr size_t kSyscallBytes = 2;
inline constexpr size_t kJumpBytes = 7;  // Of `jmp *[entry]`.
// What a plan looks at around a site.
inline constexpr size_t kBytesBefore = 16;
inline constexpr size_t kBytesAfter = 160;

enum class Form : uint8_t { kPadding, kMove, kWideMove };

enum class Refusal : uint8_t {
  kNone,
  kNotSyscall,  // The bytes are not what trapped (any more).
  kSigreturn,   // Unwinders know a signal frame by these very bytes.
  kNoRoom,      // No form fits.
  kWritable,    // The guest may be writing the page.
  kShared,      // Others may be writing the page.
  kTableFull,
  kPagesFull,  // Too many pages are copied already.
  kOccupied,   // The guest has mapped something where the table would be.
  kMemory,     // No page to be had.
};
inline constexpr size_t kRefusals = static_cast<size_t>(Refusal::kMemory) + 1;
const char* RefusalName(Refusal refusal);

// Code around a site: `bytes[0]` is at `start`.
struct Window {
  uint64_t start = 0;
  std::span<const uint8_t> bytes;
};

// Bytes to replace; never more than these.
struct Edit {
  uint64_t address = 0;
  uint8_t length = 0;
  std::array<uint8_t, 16> before{};
  std::array<uint8_t, 16> after{};
};

struct Plan {
  Refusal refusal = Refusal::kNone;
  Form form = Form::kPadding;
  uint64_t site = 0;     // Of the `syscall`.
  uint64_t padding = 0;  // kPadding: of the jump in the padding,
  uint8_t skipped = 0;   // and how far a jump over it goes that is put in front of it; 0: none.
  bool loads_number = false;
  uint32_t number = 0;  // Then: what eax (rax, sign-extended, in kWideMove) becomes.

  uint64_t return_address() const { return site + kSyscallBytes; }
};

// `rax` is what the call was made with.
Plan PlanSite(const Window& window, uint64_t site, uint64_t rax);

// The bytes that a plan changes. edits[1] is the padding; its length is 0 in the other forms.
std::array<Edit, 2> MakeEdits(const Plan& plan, const Window& window, size_t entry);

// What an entry does, and its bytes.
struct Trampoline {
  uint64_t return_address = 0;
  bool loads_number = false;
  bool wide = false;  // The number is sign-extended to 64 bits.
  uint32_t number = 0;
  friend bool operator==(const Trampoline&, const Trampoline&) = default;
  uint64_t rax(uint64_t old) const;
};
Trampoline TrampolineOf(const Plan& plan);
std::array<uint8_t, kEntryBytes> EntryCode(size_t index, const Trampoline& trampoline);
// Entry 0.
std::array<uint8_t, kEntryBytes> FirstEntry(uint64_t syscall_entry);

// The entry that `jmp *[entry]` at the start of `bytes` goes to.
std::optional<size_t> JumpTarget(std::span<const uint8_t> bytes);

}  // namespace platform::rewrite
