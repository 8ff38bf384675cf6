#pragma once

// The inside of MemoryManager, shared by the files of this directory. README.md has the invariants.

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/check.h"
#include "platform/base/user_addr.h"
#include "platform/platform.h"
#include "platform/rewrite/call_site.h"
#include "sentry/mm/code_patches.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/mm/private_pages.h"
#include "sentry/mm/vma_map.h"

namespace sentry {

// Private anonymous memory up to this size gets its pool range, and its place in the stub, at once.
inline constexpr uint64_t kEagerBytesMax = uint64_t{1} << 30;
// Larger ones get it on the first touch, in aligned pieces of this size.
inline constexpr uint64_t kLazyChunkBytes = uint64_t{64} << 20;
// Memory that a reserved (PROT_NONE) area gives up in small steps, as malloc's arenas do, comes in
// such pieces, so that the host sees one mapping instead of one per step.
inline constexpr uint64_t kReservedChunkBytes = uint64_t{4} << 20;
// Copied at a time by a write to a shared-after-fork page or to a private file page.
inline constexpr uint64_t kCopyClusterBytes = uint64_t{64} << 10;
// Fresh areas up to this size are populated at once: cheaper than their faults.
inline constexpr uint64_t kPopulateBytesMax = uint64_t{64} << 10;
inline constexpr uint64_t kHeapPopulateBytesMax = uint64_t{256} << 10;
// How far a stack grows per fault, and the heap's stock of contiguous pool.
inline constexpr uint64_t kStackStepBytes = uint64_t{128} << 10;
inline constexpr uint64_t kHeapReserveBytes = uint64_t{8} << 20;
// Private file mappings that the platform has yet to be told of.
inline constexpr size_t kPendingMax = 64;
// Areas from this size on that are touched in sequence are populated ahead, in such batches.
inline constexpr uint64_t kSequenceBytesMin = uint64_t{512} << 10;
inline constexpr uint64_t kSequenceBatchMin = uint64_t{64} << 10;
inline constexpr uint64_t kSequenceBatchMax = uint64_t{1} << 20;
inline constexpr size_t kSequencesMax = 8;
// Pieces of files mapped ahead of a fault.
inline constexpr size_t kFilePiecesMax = 64;
inline constexpr uint64_t kFileAheadBytesMax = uint64_t{1} << 30;
inline constexpr size_t kForkMappingsMax = 2048;
// Pages that fork copies instead of sharing them.
inline constexpr size_t kHotPagesMax = 24;
// Written so soon after a fork, that is.
inline constexpr size_t kHotNotesMax = 16;
// Runs up to this size are copied whole if a page of theirs is hot: each piece is a mapping.
inline constexpr uint64_t kHotRunBytesMax = 6 * 4096;

inline constexpr uint8_t kAnyAccess =
    platform::kAccessRead | platform::kAccessWrite | platform::kAccessExec;

// A private anonymous area whose upper part the platform does not show yet: a fault at the edge
// says that the guest touches the area in sequence.
struct Sequence {
  uint64_t start = 0;  // Of the area.
  uint64_t edge = 0;   // Not shown from here on,
  uint64_t end = 0;    // to here.
};

// What an operation took out of the address space. Given back by the destructor, which must run
// after the memory lock is released: files have locks of their own and the host takes time to free
// pages. By then the platform has forgotten the pages, or they are leaked here on purpose.
class Leftovers {
 public:
  explicit Leftovers(MemoryManager& memory);
  ~Leftovers();
  Leftovers(const Leftovers&) = delete;
  Leftovers& operator=(const Leftovers&) = delete;

  // Ahead of time, whatever may go while the guest can still see its pages: see Mappable.
  void LetGoOfFiles();

  std::vector<platform::PoolRange> ranges;
  std::vector<Vma> areas;

 private:
  MemoryManager& memory_;
};

// A piece of guest memory as the sentry can reach it.
struct Piece {
  enum class Kind : uint8_t {
    kBytes,    // `bytes`, in the pool's window.
    kZero,     // Never touched: `length` bytes that read as zero.
    kFile,     // `length` bytes of `mappable` at `offset`, by ReadAt and WriteAt.
    kResolve,  // ResolveLocked has to make it accessible first.
    kFault,
  };
  Kind kind = Kind::kFault;
  std::span<std::byte> bytes;
  Mappable* mappable = nullptr;
  uint64_t offset = 0;
  uint64_t length = 0;
};

// mremap(2)'s arguments, lengths rounded to pages.
struct RemapRequest {
  uint64_t old_address = 0;
  uint64_t old_length = 0;
  uint64_t new_length = 0;
  uint64_t new_address = 0;
  int flags = 0;
};

struct CopyAccess {
  bool write = false;
  bool force = false;  // As a debugger.
};

// Pages that are written soon after a fork, by the parent or the child.
class HotPages {
 public:
  void Note(uint64_t page) ABSL_LOCKS_EXCLUDED(mu_);
  // In order.
  std::vector<uint64_t> Sorted() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  std::vector<uint64_t> pages_ ABSL_GUARDED_BY(mu_);  // The oldest first.
};

struct MemoryManager::Impl {
  Impl(MemoryManager& self, platform::Platform& platform, platform::MemoryPool& pool,
       std::unique_ptr<platform::AddressSpace> space);

  // --- Areas (mapping.cc).
  base::Result<void> CheckRequestLocked(const MmapRequest& request, uint64_t length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  base::Result<uint64_t> ChooseAddressLocked(const MmapRequest& request, uint64_t length)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Any free place for `length` bytes.
  std::optional<uint64_t> FindFreeLocked(uint64_t length, int flags)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // RLIMIT_AS and RLIMIT_DATA for `bytes` more.
  bool MayExpandLocked(uint64_t bytes, bool data) const ABSL_SHARED_LOCKS_REQUIRED(mu);
  bool MayLockLocked(uint64_t bytes) const ABSL_SHARED_LOCKS_REQUIRED(mu);
  // Would this much more private memory be refused outright?
  bool OvercommitsLocked(uint64_t bytes, bool accounted) const ABSL_SHARED_LOCKS_REQUIRED(mu);
  // Takes [start, end) out of areas and pages, and with `from_host` out of the platform too.
  // Without, the caller replaces what is mapped there before the lock goes.
  void UnmapLocked(uint64_t start, uint64_t end, bool from_host, Leftovers& leftovers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Puts a new area in and maps what it shows. On failure the range is empty.
  base::Result<void> InstallLocked(Vma vma, bool populate, Leftovers& leftovers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // These two cannot fail: what the platform maps is only a cache of what the areas say, so when
  // the host is out of mappings everything is thrown out and comes back by faults.
  void HostUnmapLocked(uint64_t start, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void HostProtectLocked(uint64_t start, uint64_t end, int protection)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // One area, or a part of it, gets a new protection.
  base::Result<void> ProtectAreaLocked(VmaMap::Iterator it, int protection)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  base::Result<void> GrowHeapLocked(uint64_t old_end, uint64_t new_end, Leftovers& leftovers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void DropHeapReserveLocked(Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void NoteVirtualLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);

  // --- Memory behind areas (backing.cc).
  // What the host may allow for a piece of an area with or without pages of its own.
  // What is left of a protection while the first write is waited for. On x86 what may be written
  // may be read, also without PROT_READ.
  static int WithoutWrite(int protection) {
    return (protection & PROT_WRITE) != 0 ? (protection & ~PROT_WRITE) | PROT_READ : protection;
  }
  static int HostProtection(const Vma& vma, const PrivatePages* pages, int protection);
  // Appends what the platform should show in [start, end).
  void DescribeLocked(uint64_t start, uint64_t end, std::vector<platform::Mapping>& out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void DescribeFileLocked(const Vma& vma, uint64_t start, uint64_t end, int protection,
                          std::vector<platform::Mapping>& out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Shows the areas of [start, end) to the guest, as far as they have backing. On failure nothing
  // is mapped there.
  base::Result<void> MapLocked(uint64_t start, uint64_t end, bool populate)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // MapLocked when the guest asks for it by a fault, or along with the next MapLocked: a linker
  // maps several pieces of a file before it touches the first.
  void MapLaterLocked(uint64_t start, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // True if that may be done for this new area.
  bool MayMapLaterLocked(const Vma& vma, bool populate) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool IsWorthPopulating(const platform::Mapping& mapping) const;
  // True if `address` was yet to be shown and now can be accessed.
  bool ShowPendingLocked(const Vma& vma, uint64_t address, bool write)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Shows the beginning of a new private anonymous area, the rest when the guest gets there.
  base::Result<void> MapSequenceLocked(uint64_t start, uint64_t end)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool ShowSequenceLocked(uint64_t address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Gives pool pages to each page of [start, end) that has none; all of it is private anonymous.
  base::Result<void> AllocateLocked(uint64_t start, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // [start, end) of a reservation, widened so that the next steps need no new pieces.
  void WidenLocked(uint64_t* start, uint64_t* end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Bytes of a file into the sentry; short at its end.
  size_t ReadFile(Mappable& mappable, uint64_t offset, std::span<std::byte> out) const;
  // The file page at `address`, and what follows, as it is on the host. EFAULT beyond the end of
  // the file.
  base::Result<void> MapFileLocked(const Vma& vma, uint64_t address)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Makes `address` (and what is sensible around it, at least up to `length` for writes by the
  // sentry) accessible.
  base::Result<void> ResolveLocked(const Vma& vma, uint64_t address, uint64_t length, bool write,
                                   Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  base::Result<void> BreakCopyOnWriteLocked(const Vma& vma, PrivatePages pages, uint64_t address,
                                            uint64_t length, Leftovers& leftovers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Own pages for file pages, not shown to the guest yet: those that exist of [start, end).
  base::Result<uint64_t> BackFilePagesLocked(const Vma& vma, uint64_t start, uint64_t end,
                                             Leftovers& leftovers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  base::Result<void> CopyFilePagesLocked(const Vma& vma, uint64_t address, uint64_t length,
                                         Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // The area for an access at `address`, after growing a stack for it. end() if there is none.
  VmaMap::Iterator AreaForLocked(uint64_t address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool GrowStackLocked(VmaMap::Iterator it, uint64_t address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // The part of InvalidateFile under the lock. `private_copies`: take them along.
  void InvalidateFileLocked(const Mappable& mappable, uint64_t offset, uint64_t length,
                            bool private_copies, Leftovers& leftovers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // --- fork.cc.
  // The private pages of one area, for the child.
  void ForkAreaLocked(const Vma& vma, const std::vector<uint64_t>& hot, Impl& child)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu, child.mu);
  void ShareRunLocked(const Vma& vma, PrivatePages run, Impl& child)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu, child.mu);
  bool CopyRunLocked(const PrivatePages& run, Impl& child)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu, child.mu);
  // A page was written for the first time since a fork.
  void NoteHotLocked(uint64_t page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Tells an empty platform of everything at once.
  void ShowAllLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Bytes of the range that the host holds.
  uint64_t ResidentIn(platform::PoolRange range) const;

  // --- mremap.cc, advice.cc, locking.cc.
  base::Result<void> CheckResizeLocked(const RemapRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool ExpandInPlaceLocked(const RemapRequest& request) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  base::Result<uint64_t> MoveLocked(const RemapRequest& request, uint64_t target,
                                    Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  base::Result<uint64_t> RemapToLocked(const RemapRequest& asked, Leftovers& leftovers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  base::Result<void> AdviseAreaLocked(uint64_t start, uint64_t end, int advice,
                                      Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  base::Result<void> DropPagesLocked(const Vma& vma, uint64_t start, uint64_t end,
                                     Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Backs [start, end) of one area and has the host fault it in.
  base::Result<void> PopulateLocked(const Vma& vma, uint64_t start, uint64_t end, bool write,
                                    Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  base::Result<void> SetLockLocked(uint64_t start, uint64_t end, bool locked, bool on_fault,
                                   Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);

  // --- Rewritten system calls (rewrite.cc).
  platform::rewrite::Refusal RewriteLocked(uint64_t site, uint64_t rax, Leftovers& leftovers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Replaces the pages of the edits by edited copies, in one step. False, and nothing has changed,
  // if the bytes are not as the edits say or there is no memory.
  bool EditCodeLocked(std::span<const platform::rewrite::Edit> edits, bool undo,
                      Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Gives the sites in the range their own bytes back: before the guest, or a debugger, may write
  // there, and before pages move.
  void RevertCodeLocked(uint64_t start, uint64_t end, Leftovers& leftovers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // The pages in the range have gone.
  void ForgetCodeLocked(uint64_t start, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // The entry that does this, an old one or the next. nullopt: no memory, or the table is full.
  std::optional<size_t> EntryForLocked(const platform::rewrite::Trampoline& trampoline,
                                       Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  bool MapTableLocked(size_t page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // After a fault. False if there is no such part of the table.
  bool RestoreTableLocked(uint64_t address) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void ReleaseTableLocked(Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Where the whole address space goes, so that the host need not be told.
  void DropTableLocked(Leftovers& leftovers) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // The guest wants to have [start, end): if the table is in the way, rewriting ends here.
  void YieldTableLocked(uint64_t start, uint64_t end, Leftovers& leftovers)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void InheritPatchesLocked(const CodePatches& parent) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void DescribeTableLocked(std::vector<platform::Mapping>& mappings) const
      ABSL_SHARED_LOCKS_REQUIRED(mu);

  // --- Copies (copy.cc).
  Piece FindPieceLocked(uint64_t address, uint64_t length, CopyAccess access)
      ABSL_SHARED_LOCKS_REQUIRED(mu);
  Piece FindFilePieceLocked(const Vma& vma, uint64_t address, uint64_t length, CopyAccess access)
      ABSL_SHARED_LOCKS_REQUIRED(mu);
  // Exactly one of `in` and `out` is used, by access.write. Count before the first fault.
  size_t Copy(uint64_t address, std::byte* in, const std::byte* out, size_t length,
              CopyAccess access) ABSL_LOCKS_EXCLUDED(mu);
  // As far as it goes without ResolveLocked; sets `resolve` if that would help.
  size_t CopyPresentLocked(uint64_t address, std::byte* in, const std::byte* out, size_t length,
                           CopyAccess access, bool* resolve) ABSL_SHARED_LOCKS_REQUIRED(mu);
  // False: a fault.
  bool ResolveForCopy(uint64_t address, uint64_t length, CopyAccess access) ABSL_LOCKS_EXCLUDED(mu);
  size_t ZeroOut(uint64_t address, uint64_t length) ABSL_LOCKS_EXCLUDED(mu);

  MemoryManager& self;
  platform::Platform& platform;
  platform::MemoryPool& pool;
  // Changes once, in TakeOver, before `released` is set.
  std::unique_ptr<platform::AddressSpace> space;
  std::atomic<bool> released{false};  // ReleaseAll was called; set under `mu`.
  const uint64_t address_min;
  const uint64_t address_max;
  const uint64_t id;  // For futex keys; never reused.
  std::shared_ptr<AioContexts> aio ABSL_GUARDED_BY(mu);
  std::atomic<int> dumpable{1};
  std::atomic<uint32_t> membarrier_registrations{0};
  // The platform could not forget a mapping: no page of this memory may be given to anyone else.
  std::atomic<bool> host_stuck{false};
  uint64_t layout_seed = 0;

  mutable absl::Mutex mu;
  VmaMap vmas ABSL_GUARDED_BY(mu);
  PrivatePageMap pages ABSL_GUARDED_BY(mu);
  MemoryLimits limits ABSL_GUARDED_BY(mu);
  uint64_t mmap_base ABSL_GUARDED_BY(mu) = 0;
  uint64_t brk_start ABSL_GUARDED_BY(mu) = 0;
  uint64_t brk_end ABSL_GUARDED_BY(mu) = 0;
  // Pool pages kept for the next growth of the heap, if that starts at heap_reserve_at.
  platform::PoolRange heap_reserve ABSL_GUARDED_BY(mu);
  uint64_t heap_reserve_at ABSL_GUARDED_BY(mu) = 0;
  uint64_t locked_bytes ABSL_GUARDED_BY(mu) = 0;
  bool lock_future ABSL_GUARDED_BY(mu) = false;
  bool lock_future_on_fault ABSL_GUARDED_BY(mu) = false;
  uint64_t virtual_bytes_max ABSL_GUARDED_BY(mu) = 0;
  mutable std::atomic<uint64_t> resident_bytes_max{0};
  Image image ABSL_GUARDED_BY(mu);
  // Shared with forked children: they show which pages the next one will write.
  std::shared_ptr<HotPages> hot_pages = std::make_shared<HotPages>();
  size_t hot_notes_left ABSL_GUARDED_BY(mu) = 0;
  std::vector<platform::Protection> fork_protections ABSL_GUARDED_BY(mu);  // During a fork.
  std::vector<std::pair<uint64_t, uint64_t>> pending ABSL_GUARDED_BY(mu);  // See MapLaterLocked.
  std::vector<Sequence> sequences ABSL_GUARDED_BY(mu);
  // A program is being loaded: the platform is told at the end.
  bool loading ABSL_GUARDED_BY(mu) = false;
  const uint64_t syscall_entry;  // 0: nothing is rewritten.
  TrapCounters counters;
  CodePatches patches ABSL_GUARDED_BY(mu);
  RewriteStats* stats ABSL_GUARDED_BY(mu) =
      nullptr;  // The kernel's; null before the first rewrite.
};

}  // namespace sentry
