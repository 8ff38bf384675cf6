#include <algorithm>
#include <cstring>

#include "platform/base/check.h"
#include "platform/base/user_addr.h"
#include "platform/memory/pool_watch.h"
#include "sentry/fs/tmpfs/page_store.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::Result;
using platform::PoolRange;

namespace {

constexpr uint64_t kReservePagesMax = 512;  // 2 MiB
constexpr uint64_t kPopulatePagesMin = 8;   // From here on one fallocate is cheaper than faults.
constexpr uint64_t kAllocationPagesMax = uint64_t{1} << 18;  // 1 GiB in one piece.

}  // namespace

bool Quota::Take(uint64_t amount) {
  const uint64_t limit = this->limit();
  uint64_t used = used_.load(std::memory_order_relaxed);
  do {
    if (limit != 0 && (amount > limit || used > limit - amount)) return false;
  } while (!used_.compare_exchange_weak(used, used + amount, std::memory_order_relaxed));
  return true;
}

Result<void> Quota::SetLimit(uint64_t limit) {
  if (limit != 0 && used() > limit) return Errno(EINVAL);
  limit_.store(limit, std::memory_order_relaxed);
  return {};
}

PageStore::~PageStore() {
  for (const auto& [page, run] : runs_) {
    pool_.DropReference({run.pool_start, run.pool_start + run.pages * kPageSize});
  }
  quota_.Give(pages_);
  DropReserve();
}

void PageStore::DropReserve() {
  if (reserve_.size() != 0) pool_.DropReference(reserve_);
  reserve_ = {};
}

PageStore::Runs::const_iterator PageStore::FindRun(uint64_t page) const {
  auto it = runs_.upper_bound(page);
  if (it == runs_.begin()) return runs_.end();
  --it;
  return page < it->first + it->second.pages ? it : runs_.end();
}

std::span<std::byte> PageStore::Bytes(const Run& run, uint64_t first_page, uint64_t offset,
                                      uint64_t length) const {
  const uint64_t skip = offset - first_page * kPageSize;
  const std::span<std::byte> all =
      pool_.Window({run.pool_start, run.pool_start + run.pages * kPageSize});
  return all.subspan(skip, std::min<uint64_t>(length, all.size() - skip));
}

void PageStore::Read(uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const uint64_t page = offset / kPageSize;
    const auto run = FindRun(page);
    size_t count = 0;
    if (run != runs_.end()) {
      const std::span<std::byte> bytes = Bytes(run->second, run->first, offset, out.size());
      count = bytes.size();
      std::memcpy(out.data(), bytes.data(), count);
    } else {
      const auto next = runs_.upper_bound(page);
      count = out.size();
      if (next != runs_.end()) count = std::min<uint64_t>(count, next->first * kPageSize - offset);
      std::memset(out.data(), 0, count);
    }
    out = out.subspan(count);
    offset += count;
  }
}

Result<size_t> PageStore::Write(uint64_t offset, std::span<const std::byte> data) {
  size_t done = 0;
  while (done < data.size()) {
    const uint64_t at = offset + done;
    const uint64_t page = at / kPageSize;
    const uint64_t left = data.size() - done;
    auto run = FindRun(page);
    if (run == runs_.end()) {
      const uint64_t end_page = (at + left + kPageSize - 1) / kPageSize;
      const Result<void> made = MakePages(page, end_page - page);
      if (!made.ok()) {
        if (done != 0) return done;
        return made.error();
      }
      run = FindRun(page);
    }
    const std::span<std::byte> bytes = Bytes(run->second, run->first, at, left);
    std::memcpy(bytes.data(), data.data() + done, bytes.size());
    done += bytes.size();
  }
  return done;
}

Result<void> PageStore::MakePages(uint64_t page, uint64_t wanted) {
  const auto next = runs_.upper_bound(page);
  wanted = std::min(wanted, kAllocationPagesMax);
  if (platform::WatchOf(pool_).refuses_files()) return Errno(ENOSPC);
  if (next != runs_.end()) wanted = std::min(wanted, next->first - page);
  if (!quota_.Take(wanted)) {
    wanted = 1;  // Whatever still fits, page by page.
    if (!quota_.Take(1)) return Errno(ENOSPC);
  }
  const bool appends = next == runs_.end();
  uint64_t pool_start = 0;
  const bool continues =
      appends && !runs_.empty() &&
      std::prev(runs_.end())->first + std::prev(runs_.end())->second.pages == page;
  if (continues && reserve_.size() != 0) {
    const uint64_t count = std::min(wanted, reserve_.size() / kPageSize);
    quota_.Give(wanted - count);
    wanted = count;
    pool_start = reserve_.start;
    reserve_.start += count * kPageSize;
    if (reserve_.size() == 0) reserve_ = {};
  } else {
    const uint64_t extra =
        appends && runs_.size() + pages_ != 0 ? std::min(pages_ + wanted, kReservePagesMax) : 0;
    Result<PoolRange> made = pool_.Allocate((wanted + extra) * kPageSize);
    if (!made.ok()) {
      quota_.Give(wanted);
      return Errno(ENOSPC);
    }
    const PoolRange range = made.value();
    pool_start = range.start;
    if (appends) DropReserve();
    if (extra != 0) reserve_ = {range.start + wanted * kPageSize, range.end};
    // A file that grows in sequence: its next pages come with these.
    if (wanted + extra >= kPopulatePagesMin) pool_.Populate(range);
  }
  Insert(page, pool_start, wanted);
  return {};
}

void PageStore::Insert(uint64_t page, uint64_t pool_start, uint64_t count) {
  pages_ += count;
  auto next = runs_.upper_bound(page);
  if (next != runs_.begin()) {
    const auto previous = std::prev(next);
    const bool joins =
        previous->first + previous->second.pages == page &&
        previous->second.pool_start + previous->second.pages * kPageSize == pool_start;
    if (joins) {
      previous->second.pages += count;
      return;
    }
  }
  runs_.emplace(page, Run{pool_start, count});
}

Result<PoolRange> PageStore::Back(uint64_t offset, uint64_t length, uint64_t make_max) {
  const uint64_t page = offset / kPageSize;
  const uint64_t wanted = (length + kPageSize - 1) / kPageSize;
  auto run = FindRun(page);
  if (run == runs_.end()) {
    TRY(MakePages(page, std::min(wanted, make_max)));
    run = FindRun(page);
  }
  const uint64_t skip = page - run->first;
  const uint64_t count = std::min(wanted, run->second.pages - skip);
  const uint64_t start = run->second.pool_start + skip * kPageSize;
  return PoolRange{start, start + count * kPageSize};
}

Result<void> PageStore::Fill(uint64_t offset, uint64_t length) {
  uint64_t page = offset / kPageSize;
  const uint64_t end = (offset + length + kPageSize - 1) / kPageSize;
  while (page < end) {
    const auto run = FindRun(page);
    if (run != runs_.end()) {
      page = run->first + run->second.pages;
      continue;
    }
    const auto next = runs_.upper_bound(page);
    const uint64_t hole = next == runs_.end() ? end - page : std::min(end, next->first) - page;
    if (quota_.limit() != 0 && quota_.used() + hole > quota_.limit()) return Errno(ENOSPC);
    TRY(MakePages(page, hole));
  }
  return {};
}

void PageStore::TakeOut(uint64_t first_page, uint64_t end_page, std::vector<PoolRange>* taken) {
  auto it = runs_.upper_bound(first_page);
  if (it != runs_.begin()) --it;
  while (it != runs_.end() && it->first < end_page) {
    const uint64_t start = it->first;
    const Run run = it->second;
    const uint64_t from = std::max(start, first_page);
    const uint64_t to = std::min(start + run.pages, end_page);
    if (from >= to) {
      ++it;
      continue;
    }
    // The reserve continues the last run only as long as that keeps its end.
    if (std::next(it) == runs_.end() && to == start + run.pages) DropReserve();
    runs_.erase(it);
    if (start < from) runs_.emplace(start, Run{run.pool_start, from - start});
    if (to < start + run.pages) {
      runs_.emplace(to, Run{run.pool_start + (to - start) * kPageSize, start + run.pages - to});
    }
    taken->push_back(
        {run.pool_start + (from - start) * kPageSize, run.pool_start + (to - start) * kPageSize});
    pages_ -= to - from;
    it = runs_.lower_bound(to);
  }
}

void PageStore::Release(const std::vector<PoolRange>& taken) {
  for (const PoolRange& range : taken) {
    quota_.Give(range.size() / kPageSize);
    pool_.DropReference(range);
  }
}

void PageStore::Zero(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  while (offset < end) {
    const auto run = FindRun(offset / kPageSize);
    if (run == runs_.end()) {
      const auto next = runs_.upper_bound(offset / kPageSize);
      if (next == runs_.end()) return;
      offset = std::min(end, next->first * kPageSize);
      continue;
    }
    const std::span<std::byte> bytes = Bytes(run->second, run->first, offset, end - offset);
    std::memset(bytes.data(), 0, bytes.size());
    offset += bytes.size();
  }
}

uint64_t PageStore::NextData(uint64_t offset, uint64_t end) const {
  if (FindRun(offset / kPageSize) != runs_.end()) return offset;
  const auto next = runs_.upper_bound(offset / kPageSize);
  return next == runs_.end() ? end : std::min(end, next->first * kPageSize);
}

uint64_t PageStore::NextHole(uint64_t offset, uint64_t end) const {
  while (offset < end) {
    const auto run = FindRun(offset / kPageSize);
    if (run == runs_.end()) return offset;
    offset = (run->first + run->second.pages) * kPageSize;
  }
  return end;
}

}  // namespace sentry
