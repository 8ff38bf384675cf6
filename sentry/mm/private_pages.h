#pragma once

// Which pages of an address space have memory of their own: guest ranges -> pool ranges. Private
// anonymous memory has them from the start, private file mappings where they were written. Plain
// data: the owner locks.
//
// `copy_on_write`: the pages may have other references (after fork), so they are not mapped
// writable anywhere. The reverse holds too: a page without the mark has exactly one reference in
// the pool.

#include <cstdint>
#include <map>
#include <vector>

#include "platform/memory/memory_pool.h"

namespace sentry {

struct PrivatePages {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t pool_start = 0;
  bool copy_on_write = false;

  uint64_t size() const { return end - start; }
  // Of a part [from, to) of it.
  platform::PoolRange Pool(uint64_t from, uint64_t to) const {
    return {pool_start + (from - start), pool_start + (to - start)};
  }
  platform::PoolRange Pool() const { return {pool_start, pool_start + size()}; }
};

class PrivatePageMap {
 public:
  using Map = std::map<uint64_t, PrivatePages>;
  using Iterator = Map::iterator;

  Iterator begin() { return runs_.begin(); }
  Iterator end() { return runs_.end(); }
  Map::const_iterator begin() const { return runs_.begin(); }
  Map::const_iterator end() const { return runs_.end(); }
  uint64_t total_bytes() const { return total_bytes_; }

  Iterator Find(uint64_t address);
  // The first one that ends above `address`.
  Iterator FindFrom(uint64_t address);
  // The first gap at or above `address`, cut at `end`; false if there is none.
  bool FindGap(uint64_t address, uint64_t end, uint64_t* gap_start, uint64_t* gap_end);

  // Precondition: overlaps nothing. Joined with neighbours where the pool is contiguous too.
  void Insert(const PrivatePages& pages);
  void Split(uint64_t address);
  // Takes [start, end) out; the pool ranges are appended to `removed`.
  void Remove(uint64_t start, uint64_t end, std::vector<platform::PoolRange>& removed);
  // Likewise, with their addresses.
  std::vector<PrivatePages> Extract(uint64_t start, uint64_t end);
  // Sets the mark on what lies in the range.
  void SetCopyOnWrite(uint64_t start, uint64_t end, bool copy_on_write);

 private:
  void JoinAround(uint64_t start, uint64_t end);

  Map runs_;
  uint64_t total_bytes_ = 0;
};

}  // namespace sentry
