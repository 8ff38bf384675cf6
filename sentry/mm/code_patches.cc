#include "sentry/mm/code_patches.h"

#include "platform/base/user_addr.h"

namespace sentry {

namespace rewrite = platform::rewrite;

std::atomic<uint64_t>& TrapCounters::SlotOf(uint64_t site) {
  constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15;
  return slots_[(site * kMultiplier >> 32) % kSlots];
}

uint32_t TrapCounters::Count(uint64_t site) {
  std::atomic<uint64_t>& slot = SlotOf(site);
  uint64_t old = slot.load(std::memory_order_relaxed);
  // Races lose a count, or count one twice.
  if (old >> 8 != site) {
    slot.store(site << 8 | 1, std::memory_order_relaxed);
    return 1;
  }
  if ((old & kCountMask) == kCountMask) return kCountMask;
  slot.store(old + 1, std::memory_order_relaxed);
  return static_cast<uint32_t>((old + 1) & kCountMask);
}

void TrapCounters::GiveUp(uint64_t site) {
  SlotOf(site).store(site << 8 | kCountMask, std::memory_order_relaxed);
}

void TrapCounters::Reset(uint64_t site) {
  SlotOf(site).store(site << 8, std::memory_order_relaxed);
}

void CodePatches::Note(uint64_t site, const CodePatch& patch) {
  sites.insert_or_assign(site, patch);
  for (const rewrite::Edit& edit : patch.edits) {
    if (edit.length == 0) continue;
    const uint64_t last = base::PageDown(edit.address + edit.length - 1);
    for (uint64_t page = base::PageDown(edit.address); page <= last; page += base::kPageSize) {
      pages[page]++;
    }
  }
}

void CodePatches::Forget(std::map<uint64_t, CodePatch>::iterator it) {
  for (const rewrite::Edit& edit : it->second.edits) {
    if (edit.length == 0) continue;
    const uint64_t last = base::PageDown(edit.address + edit.length - 1);
    for (uint64_t page = base::PageDown(edit.address); page <= last; page += base::kPageSize) {
      auto found = pages.find(page);
      if (found != pages.end() && --found->second == 0) pages.erase(found);
    }
  }
  sites.erase(it);
}

std::map<uint64_t, CodePatch>::const_iterator CodePatches::FindPadding(uint64_t address) const {
  // It follows its site, within a short jump's reach.
  auto it = sites.lower_bound(address);
  while (it != sites.begin()) {
    --it;
    if (address - it->first > rewrite::kBytesAfter) break;
    if (it->second.active && it->second.padding == address) return it;
  }
  return sites.end();
}

}  // namespace sentry
