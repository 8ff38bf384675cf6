#pragma once

// What has been done to an address space's code so that its system calls jump instead of trapping
// (platform/rewrite/README.md). Plain data: the owner locks.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "platform/memory/memory_pool.h"
#include "platform/rewrite/call_site.h"

namespace sentry {

// Traps at a site before it is worth a page and a host call; see platform/rewrite/README.md.
inline constexpr uint32_t kTrapsBeforeRewrite = 4;
// Pages of one address space that may hold rewritten code.
inline constexpr size_t kRewrittenPagesMax = 512;
// A page that becomes writable again and again is left alone after so many times.
inline constexpr uint32_t kRevertsMax = 8;

struct CodePatch {
  platform::rewrite::Form form = platform::rewrite::Form::kPadding;
  size_t entry = 0;
  uint64_t padding = 0;
  std::array<platform::rewrite::Edit, 2> edits;
  bool active = true;  // Else the site has its old bytes back; the padding keeps its jump.
  uint32_t reverts = 0;
};

// Counts traps by site, and forgets when two sites share a slot. Lock-free.
class TrapCounters {
 public:
  // How often `site` has trapped, this time included, as far as is remembered.
  uint32_t Count(uint64_t site);
  // Never reports kTrapsBeforeRewrite again, unless forgotten.
  void GiveUp(uint64_t site);
  // Starts over.
  void Reset(uint64_t site);

 private:
  static constexpr size_t kSlots = 512;
  static constexpr uint64_t kCountMask = 0xff;
  std::atomic<uint64_t>& SlotOf(uint64_t site);

  // Address << 8 | count.
  std::array<std::atomic<uint64_t>, kSlots> slots_{};
};

struct CodePatches {
  uint64_t syscall_entry = 0;  // 0: nothing is rewritten.
  bool occupied = false;       // The guest has something where the table would be.
  // By address of the instruction.
  std::map<uint64_t, CodePatch> sites;
  std::map<uint64_t, uint32_t> pages;  // Page -> edits that touch it.
  // The table: entries, and the pool pages that hold them, which forked children refer to as well.
  std::vector<platform::rewrite::Trampoline> entries;
  absl::flat_hash_map<uint64_t, size_t> entry_of;  // By return address: the newest.
  std::vector<platform::PoolRange> table;

  // May the guest's mappings not lie in the table's place?
  bool reserved() const { return syscall_entry != 0 && !occupied; }
  void Note(uint64_t site, const CodePatch& patch);
  void Forget(std::map<uint64_t, CodePatch>::iterator it);
  // The active patch whose jump in padding is at `address`; end() if there is none.
  std::map<uint64_t, CodePatch>::const_iterator FindPadding(uint64_t address) const;
};

}  // namespace sentry
