#include "sentry/mm/memory_manager.h"

#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "platform/base/log.h"
#include "sentry/ipc/shared_memory.h"
#include "sentry/mm/memory_manager_impl.h"
#include "sentry/mm/residency.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::PageDown;
using base::PageUp;
using base::Result;

namespace {

// mmap_min_addr's distance and mmap_rnd_bits of x86-64, in Linux's defaults.
constexpr uint64_t kMmapRandomPages = uint64_t{1} << 28;
constexpr uint64_t kStackRandomBytesMax = uint64_t{16} << 30;
constexpr uint64_t kStackGapMin = uint64_t{128} << 20;
// Counted as resident of a file mapping: what an ordinary program touches of one.
constexpr uint64_t kFileResidentEstimate = uint64_t{256} << 10;

// Runs of resident pages looked at per area: an estimate may end somewhere.
constexpr uint64_t kResidentRunsMax = 4096;

uint64_t NextId() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

// Of a memory whose address space another one has taken over.
class NoAddressSpace final : public platform::AddressSpace {
 public:
  Result<void> Map(const platform::Mapping&) override { return Errno(ESRCH); }
  Result<void> Unmap(uint64_t, uint64_t) override { return Errno(ESRCH); }
  Result<void> Protect(uint64_t, uint64_t, int) override { return Errno(ESRCH); }
};

}  // namespace

Leftovers::Leftovers(MemoryManager& memory) : memory_(memory) {}

void Leftovers::LetGoOfFiles() {
  for (Vma& vma : areas) {
    vma.file.reset();
    if (vma.mappable == nullptr) continue;
    if (ShmRegistry::IsAttachment(*vma.mappable)) {
      // Only counts, which others may look at as soon as the process has ended; a second time does
      // nothing. What it shows stays.
      vma.mappable->RemoveMapping(memory_, vma.offset, vma.size(), vma.shared_writable());
    }
    if (vma.mappable->MayShowPool()) continue;
    vma.mappable->RemoveMapping(memory_, vma.offset, vma.size(), vma.shared_writable());
    vma.mappable.reset();
  }
}

Leftovers::~Leftovers() {
  for (const Vma& vma : areas) {
    if (vma.mappable != nullptr) {
      vma.mappable->RemoveMapping(memory_, vma.offset, vma.size(), vma.shared_writable());
    }
  }
  if (ranges.empty()) return;
  if (memory_.impl_->host_stuck.load(std::memory_order_acquire)) {
    LOG_ERROR("memory: %zu page ranges are lost, a guest may still see them", ranges.size());
    return;
  }
  // One hole per contiguous run: the host's cost is per call.
  std::sort(ranges.begin(), ranges.end(),
            [](const auto& a, const auto& b) { return a.start < b.start; });
  platform::PoolRange run = ranges.front();
  for (size_t i = 1; i < ranges.size(); i++) {
    if (ranges[i].start == run.end) {
      run.end = ranges[i].end;
      continue;
    }
    memory_.impl_->pool.DropReference(run);
    run = ranges[i];
  }
  memory_.impl_->pool.DropReference(run);
}

MemoryManager::Impl::Impl(MemoryManager& owner, platform::Platform& host_platform,
                          platform::MemoryPool& memory_pool,
                          std::unique_ptr<platform::AddressSpace> address_space)
    : self(owner),
      platform(host_platform),
      pool(memory_pool),
      space(std::move(address_space)),
      address_min(host_platform.user_address_min()),
      address_max(host_platform.user_address_max()),
      id(NextId()),
      syscall_entry(host_platform.syscall_entry()) {
  patches.syscall_entry = syscall_entry;
}

MemoryManager::MemoryManager() = default;

MemoryManager::~MemoryManager() { ReleaseAll(); }

Result<std::shared_ptr<MemoryManager>> MemoryManager::Create(platform::Platform& platform,
                                                             platform::MemoryPool& pool,
                                                             uint64_t layout_seed) {
  return Make(platform, pool, TRY(platform.NewAddressSpace()), layout_seed);
}

std::shared_ptr<MemoryManager> MemoryManager::Make(platform::Platform& platform,
                                                   platform::MemoryPool& pool,
                                                   std::unique_ptr<platform::AddressSpace> space,
                                                   uint64_t layout_seed) {
  std::shared_ptr<MemoryManager> memory(new MemoryManager());
  memory->impl_ = std::make_unique<Impl>(*memory, platform, pool, std::move(space));
  memory->impl_->layout_seed = layout_seed;
  memory->ConfigureLayout(MemoryLimits{}.stack_bytes);
  return memory;
}

platform::AddressSpace& MemoryManager::address_space() { return *impl_->space; }
platform::MemoryPool& MemoryManager::pool() { return impl_->pool; }
uint64_t MemoryManager::address_min() const { return impl_->address_min; }
uint64_t MemoryManager::address_max() const { return impl_->address_max; }
std::atomic<int>& MemoryManager::dumpable() { return impl_->dumpable; }

void MemoryManager::ConfigureLayout(uint64_t stack_limit_bytes) {
  const uint64_t span = impl_->address_max;
  uint64_t gap = std::min(stack_limit_bytes, span) + kStackGuardBytes;
  if (impl_->layout_seed != 0) gap += kStackRandomBytesMax;
  gap = std::clamp(gap, kStackGapMin, span / 6 * 5);
  const uint64_t random_bytes = (impl_->layout_seed % kMmapRandomPages) * kPageSize;
  absl::MutexLock lock(&impl_->mu);
  impl_->mmap_base = PageDown(span - gap - random_bytes);
}

std::optional<FaultSignal> MemoryManager::HandleFault(uint64_t address, uint8_t access) {
  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  if ((access & platform::kAccessWrite) == 0 && impl_->patches.reserved() &&
      impl_->RestoreTableLocked(address)) {
    return std::nullopt;
  }
  auto it = impl_->AreaForLocked(address);
  if (it == impl_->vmas.end()) return FaultSignal{SIGSEGV, SEGV_MAPERR};
  const Vma& vma = it->second;
  const bool write = (access & platform::kAccessWrite) != 0;
  const bool execute = (access & platform::kAccessExec) != 0;
  // Whatever is accessible at all can be read on x86.
  if (!vma.accessible() || (write && !vma.writable()) ||
      (execute && (vma.protection & PROT_EXEC) == 0)) {
    return FaultSignal{SIGSEGV, SEGV_ACCERR};
  }
  if (impl_->ShowPendingLocked(vma, address, write)) return std::nullopt;
  if (!write && impl_->ShowSequenceLocked(address)) return std::nullopt;
  if (write && vma.private_anonymous() && impl_->ShowSequenceLocked(address)) {
    // Unless fork has marked the page meanwhile.
    auto run = impl_->pages.Find(address);
    if (run != impl_->pages.end() && !run->second.copy_on_write) return std::nullopt;
  }
  const Result<void> resolved = impl_->ResolveLocked(vma, address, 1, write, leftovers);
  if (!resolved.ok() && resolved.error() != ESRCH) return FaultSignal{SIGBUS, BUS_ADRERR};
  return std::nullopt;
}

void MemoryManager::InvalidateFile(const Mappable& mappable, uint64_t offset, uint64_t length) {
  // To the end of all offsets: the file has become shorter (MappingRegistry::Truncate), which takes
  // the copies in private mappings along.
  const bool private_copies = length == ~uint64_t{0} - offset;
  Leftovers leftovers(*this);
  {
    absl::MutexLock lock(&impl_->mu);
    impl_->InvalidateFileLocked(mappable, offset, length, private_copies, leftovers);
  }
  // Without areas there is nothing to unmap, but guest code may still be on its way out.
  (void)AwaitIfReleased();
}

void MemoryManager::Impl::InvalidateFileLocked(const Mappable& mappable, uint64_t offset,
                                               uint64_t length, bool private_copies,
                                               Leftovers& leftovers) {
  const uint64_t file_start = PageDown(offset);
  const uint64_t file_end = length > ~uint64_t{0} - offset ? ~uint64_t{0} : offset + length;
  for (auto& [start, vma] : vmas) {
    if (vma.mappable.get() != &mappable) continue;
    const uint64_t vma_file_end = vma.offset + vma.size();
    if (vma_file_end <= file_start || file_end <= vma.offset) continue;
    const uint64_t from = vma.start + (std::max(file_start, vma.offset) - vma.offset);
    const uint64_t to =
        file_end >= vma_file_end ? vma.end : PageUp(vma.start + (file_end - vma.offset));
    if (vma.shared || private_copies) {
      HostUnmapLocked(from, to);
      ForgetCodeLocked(from, to);
      if (!vma.shared) pages.Remove(from, to, leftovers.ranges);
      continue;
    }
    uint64_t gap_start = from, gap_end = from;
    while (pages.FindGap(gap_end, to, &gap_start, &gap_end)) {
      HostUnmapLocked(gap_start, gap_end);
    }
  }
}

void MemoryManager::StartLoading() {
  absl::MutexLock lock(&impl_->mu);
  impl_->loading = true;
}

void MemoryManager::FinishLoading() {
  absl::MutexLock lock(&impl_->mu);
  impl_->loading = false;
  impl_->ShowAllLocked();
}

std::shared_ptr<AioContexts> MemoryManager::aio() const {
  const absl::ReaderMutexLock lock(&impl_->mu);
  return impl_->aio;
}

std::shared_ptr<AioContexts> MemoryManager::SetAio(std::shared_ptr<AioContexts> contexts) {
  const absl::MutexLock lock(&impl_->mu);
  if (impl_->released.load()) return nullptr;
  if (impl_->aio == nullptr) impl_->aio = std::move(contexts);
  return impl_->aio;
}

void MemoryManager::ReleaseAll() {
  if (impl_ == nullptr) return;
  auto leftovers = std::make_unique<Leftovers>(*this);
  std::shared_ptr<File> executable;
  std::shared_ptr<AioContexts> aio;
  {
    absl::MutexLock lock(&impl_->mu);
    if (impl_->released.exchange(true)) return;
    if (impl_->vmas.size() > 0) {
      impl_->UnmapLocked(impl_->address_min, impl_->address_max, false, *leftovers);
    }
    impl_->DropHeapReserveLocked(*leftovers);
    impl_->DropTableLocked(*leftovers);
    executable = std::exchange(impl_->image.executable, nullptr);
    aio = std::exchange(impl_->aio, nullptr);
  }
  aio.reset();
  leftovers->LetGoOfFiles();
  std::shared_ptr<MemoryManager> self = weak_from_this().lock();
  if (self == nullptr) {  // Nobody else can wait for it.
    impl_->space->End();
    return;
  }
  impl_->platform.Retire(
      *impl_->space,
      [self = std::move(self), pages = std::shared_ptr<Leftovers>(std::move(leftovers))]() mutable {
        pages.reset();
        self.reset();
      });
}

std::shared_ptr<MemoryManager> MemoryManager::TakeOver(uint64_t layout_seed) {
  Leftovers leftovers(*this);
  std::shared_ptr<File> executable;
  std::shared_ptr<AioContexts> aio;  // Let go of after the lock.
  absl::MutexLock lock(&impl_->mu);
  if (impl_->released.load() || !impl_->space->Reset()) return nullptr;
  impl_->UnmapLocked(impl_->address_min, impl_->address_max, false, leftovers);
  impl_->DropHeapReserveLocked(leftovers);
  impl_->DropTableLocked(leftovers);
  executable = std::exchange(impl_->image.executable, nullptr);
  aio = std::exchange(impl_->aio, nullptr);
  std::unique_ptr<platform::AddressSpace> space =
      std::exchange(impl_->space, std::make_unique<NoAddressSpace>());
  impl_->released.store(true);
  return Make(impl_->platform, impl_->pool, std::move(space), layout_seed);
}

bool MemoryManager::AwaitIfReleased() {
  if (!impl_->released.load(std::memory_order_acquire)) return false;
  impl_->space->End();
  return true;
}

void MemoryManager::SetLimits(const MemoryLimits& limits) {
  absl::MutexLock lock(&impl_->mu);
  impl_->limits = limits;
}

MemoryLimits MemoryManager::limits() const {
  absl::ReaderMutexLock lock(&impl_->mu);
  return impl_->limits;
}

std::atomic<uint32_t>& MemoryManager::membarrier_registrations() {
  return impl_->membarrier_registrations;
}

bool MemoryManager::IsMapped(uint64_t address, uint64_t length) const {
  if (length > ~address) return false;
  absl::ReaderMutexLock lock(&impl_->mu);
  return impl_->vmas.Covers(PageDown(address), address + length);
}

MemoryManager::Image MemoryManager::image() const {
  absl::ReaderMutexLock lock(&impl_->mu);
  return impl_->image;
}

void MemoryManager::SetImage(Image image) {
  absl::MutexLock lock(&impl_->mu);
  std::swap(impl_->image, image);
}

void MemoryManager::Impl::NoteVirtualLocked() {
  virtual_bytes_max = std::max(virtual_bytes_max, vmas.total_bytes());
}

uint64_t MemoryManager::Impl::ResidentIn(platform::PoolRange range) const {
  uint64_t bytes = 0;
  ForEachResident(pool, range, kResidentRunsMax,
                  [&bytes](platform::PoolRange run) { bytes += run.size(); });
  return bytes;
}

MemoryUsage MemoryManager::Usage() const {
  absl::ReaderMutexLock lock(&impl_->mu);
  MemoryUsage usage;
  for (const auto& [start, pages] : impl_->pages) {
    usage.resident_bytes += impl_->ResidentIn(pages.Pool());
  }
  for (const auto& [start, vma] : impl_->vmas) {
    usage.virtual_bytes += vma.size();
    if (vma.mappable != nullptr && vma.accessible()) {
      const uint64_t estimate = std::min(vma.size(), kFileResidentEstimate);
      usage.resident_bytes += estimate;
      usage.shared_bytes += estimate;
    }
    if (vma.grows_down) {
      usage.stack_bytes += vma.size();
    } else if (!vma.shared && vma.writable()) {
      usage.data_bytes += vma.size();
    } else if ((vma.protection & PROT_EXEC) != 0 && !vma.anonymous()) {
      usage.text_bytes += vma.size();
    }
  }
  usage.locked_bytes = impl_->locked_bytes;
  usage.virtual_bytes_max = std::max(impl_->virtual_bytes_max, usage.virtual_bytes);
  uint64_t peak = impl_->resident_bytes_max.load(std::memory_order_relaxed);
  while (peak < usage.resident_bytes &&
         !impl_->resident_bytes_max.compare_exchange_weak(peak, usage.resident_bytes)) {
  }
  usage.resident_bytes_max = std::max(peak, usage.resident_bytes);
  return usage;
}

std::vector<VmaInfo> MemoryManager::Vmas() const {
  absl::ReaderMutexLock lock(&impl_->mu);
  std::vector<VmaInfo> lines;
  lines.reserve(impl_->vmas.size());
  for (const auto& [start, vma] : impl_->vmas) {
    VmaInfo line;
    line.start = vma.start;
    line.end = vma.end;
    line.protection = vma.protection;
    line.shared = vma.shared;
    line.grows_down = vma.grows_down;
    line.offset = vma.offset;
    line.file = vma.file;
    if (vma.name != nullptr) line.name = *vma.name;
    const bool special = vma.name != nullptr && vma.name->starts_with('[');
    if (vma.mappable != nullptr && !special) {
      const Mappable::Identity identity = vma.mappable->identity();
      line.device = identity.device;
      line.inode = identity.inode;
      line.resident_bytes = std::min(vma.size(), kFileResidentEstimate);
      if (vma.file == nullptr && vma.name == nullptr) line.name = "/dev/zero (deleted)";
    }
    for (auto it = impl_->pages.FindFrom(vma.start);
         it != impl_->pages.end() && it->second.start < vma.end; ++it) {
      const PrivatePages& run = it->second;
      line.private_bytes +=
          impl_->ResidentIn(run.Pool(std::max(run.start, vma.start), std::min(run.end, vma.end)));
    }
    line.resident_bytes += line.private_bytes;
    lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace sentry
