#include "sentry/mm/private_pages.h"

#include <algorithm>
#include <utility>

#include "platform/base/check.h"

namespace sentry {

PrivatePageMap::Iterator PrivatePageMap::FindFrom(uint64_t address) {
  auto it = runs_.upper_bound(address);
  if (it != runs_.begin()) {
    auto below = std::prev(it);
    if (below->second.end > address) return below;
  }
  return it;
}

PrivatePageMap::Iterator PrivatePageMap::Find(uint64_t address) {
  auto it = FindFrom(address);
  if (it == runs_.end() || it->second.start > address) return runs_.end();
  return it;
}

bool PrivatePageMap::FindGap(uint64_t address, uint64_t end, uint64_t* gap_start,
                             uint64_t* gap_end) {
  for (auto it = FindFrom(address); address < end; ++it) {
    if (it == runs_.end() || it->second.start > address) {
      *gap_start = address;
      *gap_end = it == runs_.end() ? end : std::min(end, it->second.start);
      return true;
    }
    address = it->second.end;
  }
  return false;
}

void PrivatePageMap::Insert(const PrivatePages& pages) {
  CHECK(pages.start < pages.end);
  total_bytes_ += pages.size();
  CHECK(runs_.emplace(pages.start, pages).second);
  JoinAround(pages.start, pages.end);
}

void PrivatePageMap::Split(uint64_t address) {
  auto it = Find(address);
  if (it == runs_.end() || it->second.start == address) return;
  PrivatePages upper = it->second;
  upper.pool_start += address - upper.start;
  upper.start = address;
  it->second.end = address;
  runs_.emplace(address, upper);
}

void PrivatePageMap::Remove(uint64_t start, uint64_t end,
                            std::vector<platform::PoolRange>& removed) {
  for (const PrivatePages& pages : Extract(start, end)) removed.push_back(pages.Pool());
}

std::vector<PrivatePages> PrivatePageMap::Extract(uint64_t start, uint64_t end) {
  Split(start);
  Split(end);
  std::vector<PrivatePages> extracted;
  auto it = runs_.lower_bound(start);
  while (it != runs_.end() && it->second.start < end) {
    total_bytes_ -= it->second.size();
    extracted.push_back(it->second);
    it = runs_.erase(it);
  }
  return extracted;
}

void PrivatePageMap::SetCopyOnWrite(uint64_t start, uint64_t end, bool copy_on_write) {
  Split(start);
  Split(end);
  for (auto it = runs_.lower_bound(start); it != runs_.end() && it->second.start < end; ++it) {
    it->second.copy_on_write = copy_on_write;
  }
  JoinAround(start, end);
}

void PrivatePageMap::JoinAround(uint64_t start, uint64_t end) {
  auto it = runs_.lower_bound(start);
  if (it != runs_.begin()) --it;
  while (it != runs_.end() && it->second.start <= end) {
    auto next = std::next(it);
    if (next != runs_.end() && next->second.start == it->second.end &&
        next->second.copy_on_write == it->second.copy_on_write &&
        next->second.pool_start == it->second.pool_start + it->second.size()) {
      it->second.end = next->second.end;
      runs_.erase(next);
    } else {
      it = next;
    }
  }
}

}  // namespace sentry
