// Rewriting system calls into jumps, as far as it is about memory: which page may be copied, the
// table of trampolines, taking changes back, and making it all invisible. What bytes are changed is
// platform/rewrite's; README.md there has the whole story.
//
// Every change of code is a fresh copy of its one or two pages, mapped over the old ones in one
// step of the host. So whoever executes there sees the old bytes or the new ones, never a mixture,
// in whatever line or page they lie.

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_format.h"
#include "platform/base/log.h"
#include "sentry/mm/memory_manager_impl.h"
#include "sentry/mm/rewrite_stats.h"

namespace sentry {

using base::kPageSize;
using base::PageDown;
using base::PageUp;
using base::Result;
using platform::Event;
using platform::EventKind;
using platform::PoolRange;
using platform::Registers;
namespace rewrite = platform::rewrite;
using rewrite::Refusal;

namespace {

constexpr size_t kEntriesPerPage = kPageSize / rewrite::kEntryBytes;
constexpr uint64_t kResumeFlag = 0x10000;

// The rest of `site`'s call: as if the instruction had been executed where it stood.
Event MakeCall(uint64_t return_address, Registers& registers) {
  Event event;
  event.kind = EventKind::kSyscall;
  event.path = platform::SyscallPath::kEntryTrap;
  registers.orig_rax = registers.rax;
  registers.rax = static_cast<uint64_t>(-ENOSYS);
  registers.rip = registers.rcx = return_address;
  registers.eflags &= ~kResumeFlag;
  registers.r11 = registers.eflags;
  return event;
}

bool IsStep(const Event& event) {
  return event.kind == EventKind::kSignal && event.signal == SIGTRAP;
}

}  // namespace

std::string Describe(const RewriteStats& stats) {
  std::string line = absl::StrFormat(
      "system calls: %d trapped, %d jumped and trapped, %d jumped; sites rewritten: %d, on %d "
      "copied pages, %d reverted; refused:",
      stats.calls[0].load(), stats.calls[1].load(), stats.calls[2].load(), stats.sites.load(),
      stats.pages.load(), stats.reverted.load());
  for (size_t i = 0; i < stats.refused.size(); i++) {
    const uint64_t count = stats.refused[i].load();
    if (count == 0) continue;
    absl::StrAppendFormat(&line, " %d %s,", count, rewrite::RefusalName(static_cast<Refusal>(i)));
  }
  if (line.back() == ',') line.pop_back();
  if (line.back() == ':') line += " none";
  return line;
}

// --- The table.

bool MemoryManager::Impl::MapTableLocked(size_t page) {
  platform::Mapping mapping;
  mapping.address = rewrite::kTableStart + page * kPageSize;
  mapping.length = kPageSize;
  mapping.host_fd = pool.fd();
  mapping.offset = patches.table[page].start;
  mapping.protection = PROT_READ | PROT_EXEC;
  mapping.populate = true;
  return space->Map(mapping).ok();
}

std::optional<size_t> MemoryManager::Impl::EntryForLocked(const rewrite::Trampoline& trampoline,
                                                          Leftovers& leftovers) {
  const auto known = patches.entry_of.find(trampoline.return_address);
  if (known != patches.entry_of.end() && patches.entries[known->second] == trampoline) {
    return known->second;
  }
  const size_t index = std::max<size_t>(patches.entries.size(), 1);
  if (index >= rewrite::kEntriesMax) return std::nullopt;
  const size_t page = index / kEntriesPerPage;
  bool map = false;
  if (page == patches.table.size() || !pool.IsUnique(patches.table[page])) {
    const Result<PoolRange> fresh = pool.Allocate(kPageSize);
    if (!fresh.ok()) return std::nullopt;
    std::byte* bytes = pool.Window(fresh.value()).data();
    if (page == patches.table.size()) {
      patches.table.push_back(fresh.value());
    } else {
      // A forked process has the old one.
      std::memcpy(bytes, pool.Window(patches.table[page]).data(), kPageSize);
      leftovers.ranges.push_back(std::exchange(patches.table[page], fresh.value()));
    }
    map = true;
  }
  std::byte* bytes = pool.Window(patches.table[page]).data();
  if (patches.entries.empty()) {
    patches.entries.emplace_back();
    std::memcpy(bytes, rewrite::FirstEntry(patches.syscall_entry).data(), rewrite::kEntryBytes);
  }
  std::memcpy(bytes + index % kEntriesPerPage * rewrite::kEntryBytes,
              rewrite::EntryCode(index, trampoline).data(), rewrite::kEntryBytes);
  patches.entries.push_back(trampoline);
  patches.entry_of[trampoline.return_address] = index;
  // Should the host refuse, the fault at the first use asks again; an old page must go, though.
  const uint64_t address = rewrite::kTableStart + page * kPageSize;
  if (map && !MapTableLocked(page)) HostUnmapLocked(address, address + kPageSize);
  return index;
}

bool MemoryManager::Impl::RestoreTableLocked(uint64_t address) {
  const size_t page = (address - rewrite::kTableStart) / kPageSize;
  return rewrite::InTable(address) && page < patches.table.size() && MapTableLocked(page);
}

void MemoryManager::Impl::ReleaseTableLocked(Leftovers& leftovers) {
  if (patches.table.empty()) return;
  HostUnmapLocked(rewrite::kTableStart, rewrite::kTableEnd);
  DropTableLocked(leftovers);
}

void MemoryManager::Impl::DropTableLocked(Leftovers& leftovers) {
  leftovers.ranges.insert(leftovers.ranges.end(), patches.table.begin(), patches.table.end());
  patches.table.clear();
}

void MemoryManager::Impl::YieldTableLocked(uint64_t start, uint64_t end, Leftovers& leftovers) {
  if (!patches.reserved() || end <= rewrite::kTableStart || rewrite::kTableEnd <= start) return;
  patches.occupied = true;
  RevertCodeLocked(address_min, address_max, leftovers);
  ReleaseTableLocked(leftovers);
}

void MemoryManager::Impl::InheritPatchesLocked(const CodePatches& parent) {
  patches = parent;
  for (const platform::PoolRange& page : patches.table) pool.AddReference(page);
}

void MemoryManager::Impl::DescribeTableLocked(std::vector<platform::Mapping>& mappings) const {
  for (size_t page = 0; page < patches.table.size(); page++) {
    platform::Mapping mapping;
    mapping.address = rewrite::kTableStart + page * kPageSize;
    mapping.length = kPageSize;
    mapping.host_fd = pool.fd();
    mapping.offset = patches.table[page].start;
    mapping.protection = PROT_READ | PROT_EXEC;
    mappings.push_back(mapping);
  }
}

// --- Code.

bool MemoryManager::Impl::EditCodeLocked(std::span<const rewrite::Edit> edits, bool undo,
                                         Leftovers& leftovers) {
  uint64_t start = ~uint64_t{0}, end = 0;
  for (const rewrite::Edit& edit : edits) {
    if (edit.length == 0) continue;
    start = std::min(start, PageDown(edit.address));
    end = std::max(end, PageUp(edit.address + edit.length));
  }
  const Result<PoolRange> fresh = pool.Allocate(end - start);
  if (!fresh.ok()) return false;
  const std::span<std::byte> bytes = pool.Window(fresh.value());
  bool resolve = false;
  bool same = CopyPresentLocked(start, bytes.data(), nullptr, bytes.size(), {.force = true},
                                &resolve) == bytes.size();
  for (const rewrite::Edit& edit : edits) {
    if (!same || edit.length == 0) continue;
    std::byte* target = &bytes[edit.address - start];
    const auto& from = undo ? edit.after : edit.before;
    const auto& to = undo ? edit.before : edit.after;
    same = std::memcmp(target, from.data(), edit.length) == 0;
    if (same) std::memcpy(target, to.data(), edit.length);
  }
  if (!same) {
    leftovers.ranges.push_back(fresh.value());
    return false;
  }
  pages.Remove(start, end, leftovers.ranges);
  pages.Insert({start, end, fresh.value().start, false});
  // If the host does not map it now, a fault will.
  if (!MapLocked(start, end, true).ok()) HostUnmapLocked(start, end);
  return true;
}

void MemoryManager::Impl::RevertCodeLocked(uint64_t start, uint64_t end, Leftovers& leftovers) {
  auto it = patches.sites.lower_bound(start - std::min(start, rewrite::kBytesAfter));
  for (; it != patches.sites.end() && it->first < end + rewrite::kBytesBefore; ++it) {
    CodePatch& patch = it->second;
    const rewrite::Edit& edit = patch.edits[0];
    const bool touched = (PageDown(edit.address) < end && edit.address + edit.length > start) ||
                         (patch.padding >= start && patch.padding < end);
    if (!touched || !patch.active) continue;
    // The jump in the padding stays: a thread may be just before it.
    patch.active = !EditCodeLocked({&edit, 1}, true, leftovers);
    patch.reverts++;
    counters.Reset(it->first);
    if (stats != nullptr) stats->reverted.fetch_add(1, std::memory_order_relaxed);
  }
}

void MemoryManager::Impl::ForgetCodeLocked(uint64_t start, uint64_t end) {
  if (patches.sites.empty()) return;
  auto it = patches.sites.lower_bound(start - std::min(start, rewrite::kBytesAfter));
  while (it != patches.sites.end() && it->first < end + rewrite::kBytesBefore) {
    auto next = std::next(it);
    bool touched = false;
    for (const rewrite::Edit& edit : it->second.edits) {
      touched |= edit.length != 0 && edit.address < end && edit.address + edit.length > start;
    }
    if (touched) patches.Forget(it);
    it = next;
  }
}

Refusal MemoryManager::Impl::RewriteLocked(uint64_t site, uint64_t rax, Leftovers& leftovers) {
  if (!patches.reserved()) return Refusal::kOccupied;
  if (patches.entries.empty() && vmas.Overlaps(rewrite::kTableStart, rewrite::kTableEnd)) {
    patches.occupied = true;
    return Refusal::kOccupied;
  }
  auto area = vmas.Find(site);
  if (area == vmas.end() || (area->second.protection & PROT_EXEC) == 0) return Refusal::kNotSyscall;
  const Vma& vma = area->second;
  if (vma.writable()) return Refusal::kWritable;
  if (vma.shared) return Refusal::kShared;

  if (auto known = patches.sites.find(site); known != patches.sites.end()) {
    CodePatch& patch = known->second;
    if (patch.active) return Refusal::kNone;  // Another thread was faster.
    if (patch.reverts > kRevertsMax) return Refusal::kWritable;
    patch.active = EditCodeLocked({patch.edits.data(), 1}, false, leftovers);
    if (patch.active) return Refusal::kNone;
    patches.Forget(known);  // Other code by now.
  }
  if (patches.pages.size() >= kRewrittenPagesMax) return Refusal::kPagesFull;

  std::array<uint8_t, rewrite::kBytesBefore + rewrite::kBytesAfter> bytes;
  const uint64_t start = std::max(vma.start, site - rewrite::kBytesBefore);
  const uint64_t end = std::min(vma.end, site + rewrite::kBytesAfter);
  bool resolve = false;
  const size_t read = CopyPresentLocked(start, reinterpret_cast<std::byte*>(bytes.data()), nullptr,
                                        end - start, {.force = true}, &resolve);
  const rewrite::Window window{start, std::span(bytes).first(read)};
  const rewrite::Plan plan = rewrite::PlanSite(window, site, rax);
  if (plan.refusal != Refusal::kNone) return plan.refusal;
  if (rewrite::EntryIndex(rewrite::kTableEnd) <= patches.entries.size()) return Refusal::kTableFull;
  const std::optional<size_t> entry = EntryForLocked(rewrite::TrampolineOf(plan), leftovers);
  if (!entry) return Refusal::kMemory;
  CodePatch patch;
  patch.form = plan.form;
  patch.entry = *entry;
  patch.padding = plan.padding;
  patch.edits = rewrite::MakeEdits(plan, window, *entry);
  const size_t pages_before = patches.pages.size();
  if (!EditCodeLocked(patch.edits, false, leftovers)) return Refusal::kMemory;
  patches.Note(site, patch);
  if (stats != nullptr) {
    stats->pages.fetch_add(patches.pages.size() - pages_before, std::memory_order_relaxed);
  }
  return Refusal::kNone;
}

void MemoryManager::NoteTrappedCall(uint64_t site, uint64_t rax, RewriteStats& stats) {
  if (impl_->syscall_entry == 0) return;
  if (impl_->counters.Count(site) != kTrapsBeforeRewrite) return;
  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  impl_->stats = &stats;
  const Refusal refusal = impl_->RewriteLocked(site, rax, leftovers);
  if (refusal == Refusal::kNone) {
    stats.sites.fetch_add(1, std::memory_order_relaxed);
  } else {
    stats.refused[static_cast<size_t>(refusal)].fetch_add(1, std::memory_order_relaxed);
    impl_->counters.GiveUp(site);
  }
  LOG_DEBUG("rewrite: %lx, number %ld: %s", site, static_cast<long>(rax),
            refusal == Refusal::kNone ? "done" : rewrite::RefusalName(refusal));
}

// --- As if nothing had happened.

void MemoryManager::HideRewriting(Event& event, Registers& registers) {
  Impl& impl = *impl_;
  const bool unknown_opcode = event.kind == EventKind::kSignal && event.signal == SIGILL;
  const bool asynchronous = event.kind == EventKind::kInterrupted || IsStep(event);
  if (!rewrite::InTable(registers.rip) && !unknown_opcode && !asynchronous) return;
  absl::ReaderMutexLock lock(&impl.mu);
  if (rewrite::InTable(registers.rip)) {
    const size_t index = rewrite::EntryIndex(registers.rip);
    const bool inside = registers.rip % rewrite::kEntryBytes >= sizeof(uint64_t);
    if (!asynchronous && event.kind != EventKind::kFault) return;
    if (!inside || index == 0 || index >= impl.patches.entries.size()) return;
    const rewrite::Trampoline& trampoline = impl.patches.entries[index];
    registers.rax = trampoline.rax(registers.rax);
    const bool first = registers.rip % rewrite::kEntryBytes == sizeof(uint64_t);
    if (first && trampoline.loads_number && IsStep(event)) {
      // A step over the `mov`. The instruction that stands there now makes the call.
      registers.rip = trampoline.return_address - rewrite::kSyscallBytes;
      return;
    }
    event = MakeCall(trampoline.return_address, registers);
    return;
  }
  if (unknown_opcode) {
    const auto it = impl.patches.sites.find(registers.rip);
    if (it == impl.patches.sites.end() || !it->second.active ||
        it->second.form != rewrite::Form::kMove) {
      return;
    }
    event = MakeCall(registers.rip + rewrite::kSyscallBytes, registers);
  } else if (asynchronous) {
    const auto it = impl.patches.FindPadding(registers.rip);
    if (it == impl.patches.sites.end()) return;
    if (IsStep(event)) {
      event = MakeCall(it->first + rewrite::kSyscallBytes, registers);
    } else {
      registers.rip = it->first;
    }
  }
}

}  // namespace sentry
