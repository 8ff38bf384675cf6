#pragma once

// The areas of one address space, ordered by address, and the search for free ones. Plain data: the
// owner locks.

#include <sys/mman.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "sentry/mm/mappable.h"

namespace sentry {

class File;

// A run of pages with one set of properties (Linux's vm_area_struct).
struct Vma {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t offset = 0;  // In the mappable, of `start`. 0 for private anonymous memory.
  std::shared_ptr<Mappable> mappable;  // Null for private anonymous memory.
  std::shared_ptr<File> file;
  std::shared_ptr<const std::string> name;
  int protection = 0;                                    // PROT_*
  int may_protect = PROT_READ | PROT_WRITE | PROT_EXEC;  // VM_MAYREAD...
  bool shared = false;
  bool grows_down = false;
  bool no_reserve = false;
  bool locked = false;
  bool lock_on_fault = false;
  bool dont_fork = false;
  bool wipe_on_fork = false;
  bool dont_dump = false;

  uint64_t size() const { return end - start; }
  uint64_t OffsetOf(uint64_t address) const { return offset + (address - start); }
  bool accessible() const { return protection != PROT_NONE; }
  bool writable() const { return (protection & PROT_WRITE) != 0; }
  bool anonymous() const { return mappable == nullptr; }
  bool private_anonymous() const { return mappable == nullptr && !shared; }
  bool shared_writable() const { return shared && (may_protect & PROT_WRITE) != 0; }
};

// Linux's stack_guard_gap.
inline constexpr uint64_t kStackGuardBytes = 256 * 4096;
// vm.max_map_count
inline constexpr size_t kMapCountMax = 65530;

class VmaMap {
 public:
  using Map = std::map<uint64_t, Vma>;
  using Iterator = Map::iterator;

  Iterator begin() { return areas_.begin(); }
  Iterator end() { return areas_.end(); }
  Map::const_iterator begin() const { return areas_.begin(); }
  Map::const_iterator end() const { return areas_.end(); }
  size_t size() const { return areas_.size(); }
  uint64_t total_bytes() const { return total_bytes_; }

  // The area that holds `address`; end() if none.
  Iterator Find(uint64_t address);
  // The first one that ends above `address` (Linux's find_vma).
  Iterator FindFrom(uint64_t address);
  bool Overlaps(uint64_t start, uint64_t end);
  // True if every page of the range is in some area.
  bool Covers(uint64_t start, uint64_t end);
  // Bytes of the range that lie in areas.
  uint64_t BytesIn(uint64_t start, uint64_t end);
  // Areas that would come into being by cutting the range out of what it overlaps: 0, 1 or 2.
  size_t CutsAt(uint64_t start, uint64_t end);

  // Precondition: overlaps nothing. Not merged: call Merge after.
  Iterator Insert(Vma vma);
  // Makes `address` a boundary.
  void Split(uint64_t address);
  Iterator Erase(Iterator it);
  // Moves an end. Preconditions: the result is not empty and overlaps nothing.
  void SetStart(Iterator it, uint64_t start);
  void SetEnd(Iterator it, uint64_t end);
  // Joins equal neighbours in and at the edges of the range. Iterators into it become invalid.
  void Merge(uint64_t start, uint64_t end);

  // Free ranges in [low, high): the highest, or the lowest, one of `length` bytes. Keeps the guard
  // gap below areas that grow down.
  std::optional<uint64_t> FindGapBelow(uint64_t length, uint64_t low, uint64_t high);
  std::optional<uint64_t> FindGapAbove(uint64_t length, uint64_t low, uint64_t high);

 private:
  static bool CanJoin(const Vma& lower, const Vma& upper);
  static uint64_t GuardedStart(const Vma& vma);
  void NoteFreed(uint64_t start, uint64_t end);

  Map areas_;
  uint64_t total_bytes_ = 0;
  // Search memory for FindGapBelow: every gap in [cached_floor_, cached_high_) is at most
  // cached_hole_ bytes.
  uint64_t cached_high_ = 0;
  uint64_t cached_floor_ = 0;
  uint64_t cached_hole_ = 0;
};

}  // namespace sentry
