#include "sentry/mm/vma_map.h"

#include <algorithm>
#include <utility>

#include "platform/base/check.h"

namespace sentry {

VmaMap::Iterator VmaMap::FindFrom(uint64_t address) {
  auto it = areas_.upper_bound(address);
  if (it != areas_.begin()) {
    auto below = std::prev(it);
    if (below->second.end > address) return below;
  }
  return it;
}

VmaMap::Iterator VmaMap::Find(uint64_t address) {
  auto it = FindFrom(address);
  if (it == areas_.end() || it->second.start > address) return areas_.end();
  return it;
}

bool VmaMap::Overlaps(uint64_t start, uint64_t end) {
  auto it = FindFrom(start);
  return it != areas_.end() && it->second.start < end;
}

bool VmaMap::Covers(uint64_t start, uint64_t end) {
  for (auto it = FindFrom(start); start < end; ++it) {
    if (it == areas_.end() || it->second.start > start) return false;
    start = it->second.end;
  }
  return true;
}

uint64_t VmaMap::BytesIn(uint64_t start, uint64_t end) {
  uint64_t bytes = 0;
  for (auto it = FindFrom(start); it != areas_.end() && it->second.start < end; ++it) {
    bytes += std::min(end, it->second.end) - std::max(start, it->second.start);
  }
  return bytes;
}

size_t VmaMap::CutsAt(uint64_t start, uint64_t end) {
  size_t cuts = 0;
  for (const uint64_t edge : {start, end}) {
    auto it = Find(edge);
    if (it != areas_.end() && it->second.start < edge) cuts++;
  }
  return cuts;
}

VmaMap::Iterator VmaMap::Insert(Vma vma) {
  CHECK(vma.start < vma.end);
  total_bytes_ += vma.size();
  const uint64_t start = vma.start;
  auto [it, inserted] = areas_.emplace(start, std::move(vma));
  CHECK(inserted);
  return it;
}

void VmaMap::Split(uint64_t address) {
  auto it = Find(address);
  if (it == areas_.end() || it->second.start == address) return;
  Vma upper = it->second;
  if (!upper.anonymous()) upper.offset = it->second.OffsetOf(address);
  upper.start = address;
  it->second.end = address;
  areas_.emplace(address, std::move(upper));
}

VmaMap::Iterator VmaMap::Erase(Iterator it) {
  const uint64_t start = it->second.start;
  const uint64_t end = it->second.end;
  total_bytes_ -= end - start;
  it = areas_.erase(it);
  NoteFreed(start, end);
  return it;
}

void VmaMap::SetStart(Iterator it, uint64_t start) {
  CHECK(start < it->second.end);
  auto node = areas_.extract(it);
  Vma& vma = node.mapped();
  const uint64_t old_start = vma.start;
  total_bytes_ += old_start;
  total_bytes_ -= start;
  if (!vma.anonymous()) vma.offset += start - old_start;
  vma.start = start;
  node.key() = start;
  CHECK(areas_.insert(std::move(node)).inserted);
  if (start > old_start) NoteFreed(old_start, start);
}

void VmaMap::SetEnd(Iterator it, uint64_t end) {
  Vma& vma = it->second;
  CHECK(end > vma.start);
  const uint64_t old_end = vma.end;
  total_bytes_ += end;
  total_bytes_ -= old_end;
  vma.end = end;
  if (end < old_end) NoteFreed(end, old_end);
}

bool VmaMap::CanJoin(const Vma& a, const Vma& b) {
  return a.end == b.start && a.protection == b.protection && a.may_protect == b.may_protect &&
         a.shared == b.shared && a.grows_down == b.grows_down && a.no_reserve == b.no_reserve &&
         a.locked == b.locked && a.lock_on_fault == b.lock_on_fault && a.dont_fork == b.dont_fork &&
         a.wipe_on_fork == b.wipe_on_fork && a.dont_dump == b.dont_dump &&
         a.mappable == b.mappable && a.file == b.file &&
         (a.anonymous() || a.OffsetOf(a.end) == b.offset) &&
         (a.name == b.name || (a.name != nullptr && b.name != nullptr && *a.name == *b.name));
}

void VmaMap::Merge(uint64_t start, uint64_t end) {
  auto it = areas_.lower_bound(start);
  if (it != areas_.begin()) --it;
  while (it != areas_.end() && it->second.start <= end) {
    auto next = std::next(it);
    if (next != areas_.end() && CanJoin(it->second, next->second)) {
      it->second.end = next->second.end;
      areas_.erase(next);
    } else {
      it = next;
    }
  }
}

uint64_t VmaMap::GuardedStart(const Vma& vma) {
  if (!vma.grows_down) return vma.start;
  return vma.start > kStackGuardBytes ? vma.start - kStackGuardBytes : 0;
}

void VmaMap::NoteFreed(uint64_t start, uint64_t end) {
  if (end <= cached_floor_) return;
  auto above = areas_.lower_bound(end);
  const uint64_t gap_end = above == areas_.end() ? cached_high_ : above->second.start;
  const uint64_t gap_start = above == areas_.begin() ? 0 : std::prev(above)->second.end;
  (void)start;
  if (gap_end > gap_start) cached_hole_ = std::max(cached_hole_, gap_end - gap_start);
}

std::optional<uint64_t> VmaMap::FindGapBelow(uint64_t length, uint64_t low, uint64_t high) {
  if (length > high || high - length < low) return std::nullopt;
  const bool use_cache = high == cached_high_ && length > cached_hole_;
  uint64_t top = use_cache ? std::min(high, cached_floor_) : high;
  uint64_t hole = use_cache ? cached_hole_ : 0;
  while (true) {
    // The last area that starts below `top` bounds the gap that ends at `top`.
    auto it = areas_.lower_bound(top);
    const uint64_t gap_start = it == areas_.begin() ? 0 : std::prev(it)->second.end;
    const uint64_t bottom = std::max(gap_start, low);
    uint64_t ceiling = top;
    if (it != areas_.end()) ceiling = std::min(ceiling, GuardedStart(it->second));
    if (ceiling > bottom && ceiling - bottom >= length) {
      cached_high_ = high;
      cached_floor_ = ceiling;
      cached_hole_ = hole;
      return ceiling - length;
    }
    if (top > bottom) hole = std::max(hole, top - bottom);
    if (it == areas_.begin() || gap_start <= low) return std::nullopt;
    top = std::prev(it)->second.start;
    if (top < low) return std::nullopt;
  }
}

std::optional<uint64_t> VmaMap::FindGapAbove(uint64_t length, uint64_t low, uint64_t high) {
  uint64_t bottom = low;
  for (auto it = FindFrom(low);; ++it) {
    const uint64_t ceiling = it == areas_.end() ? high : std::min(high, GuardedStart(it->second));
    if (ceiling > bottom && ceiling - bottom >= length) return bottom;
    if (it == areas_.end() || it->second.end >= high) return std::nullopt;
    bottom = std::max(bottom, it->second.end);
  }
}

}  // namespace sentry
