#include <cpuid.h>
#include <sys/mman.h>
#include <x86intrin.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <span>

#include "platform/base/check.h"
#include "platform/base/log.h"
#include "platform/base/user_addr.h"
#include "sentry/loader/vdso.h"
#include "sentry/loader/vdso/vvar.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/mm/shared_anonymous.h"

extern "C" const unsigned char ravelin_vdso_start[];
extern "C" const unsigned char ravelin_vdso_end[];

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::PageUp;
using base::Result;

namespace {

using Wide = unsigned __int128;

// Below this base line the counter's speed is not known well enough.
constexpr int64_t kBaselineMinNs = 5'000'000;
// A base line is renewed from its end, so that the host's steering shows.
constexpr int64_t kBaselineMaxNs = 10'000'000'000;
// How long a line is good, as a part of its base line, and at most.
constexpr int64_t kValidFraction = 4;
constexpr int64_t kValidMaxNs = 1'000'000'000;
// Ahead of the host by less than this is caught up by running slower; by more, time stands still.
constexpr int kSamplesMax = 5;
// Realtime is monotonic time plus an offset that stays while the difference could be the
// measurement's.
constexpr int64_t kOffsetNoiseNs = 500;

uint64_t ReadHostCounter(void*) {
  _mm_lfence();
  return __rdtsc();
}

uint64_t Scale(uint64_t ticks, uint64_t multiplier) {
  return static_cast<uint64_t>((Wide{ticks} * multiplier) >> 32);
}

// Accesses to the page, whose readers run at any time.
template <typename T>
T Load(const T& field) {
  return __atomic_load_n(&field, __ATOMIC_RELAXED);
}
template <typename T>
void Store(T& field, T value) {
  __atomic_store_n(&field, value, __ATOMIC_RELAXED);
}

}  // namespace

Vdso::Counter Vdso::HostCounter() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kInvariantCounter = 1u << 8;
  const bool known = __get_cpuid(0x8000'0007, &eax, &ebx, &ecx, &edx) != 0;
  return {&ReadHostCounter, nullptr, known && (edx & kInvariantCounter) != 0};
}

Vdso::Vdso(platform::MemoryPool& pool, const Clock& host, Counter counter)
    : pool_(pool), host_(host), counter_(counter), usable_(counter.usable) {}

Vdso::~Vdso() = default;

Result<std::shared_ptr<Vdso>> Vdso::Create(platform::MemoryPool& pool, const Clock& host,
                                           Counter counter) {
  std::shared_ptr<Vdso> vdso(new Vdso(pool, host, counter));
  TRY(vdso->Build());
  return vdso;
}

Result<void> Vdso::Build() {
  image_bytes_ = static_cast<uint64_t>(ravelin_vdso_end - ravelin_vdso_start);
  const uint64_t rounded = PageUp(image_bytes_);
  image_ = TRY(SharedAnonymous::Create(pool_, rounded));
  vvar_ = TRY(SharedAnonymous::Create(pool_, kPageSize));
  TRY(image_->WriteAt(0, std::as_bytes(std::span(ravelin_vdso_start, image_bytes_))));
  const HostRange range = TRY(vvar_->Translate(0, kPageSize, true));
  page_ =
      reinterpret_cast<VvarPage*>(pool_.Window({range.offset, range.offset + kPageSize}).data());
  absl::MutexLock lock(&mu_);
  reference_ = Take();
  last_ns_ = reference_.monotonic_ns;
  return {};
}

Result<uint64_t> Vdso::MapInto(MemoryManager& memory) const {
  const uint64_t rounded = PageUp(image_bytes_);
  // Room for both first: the library finds the page right below itself.
  MmapRequest room;
  room.length = kPageSize + rounded;
  room.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  const uint64_t start = TRY(memory.Mmap(room));
  MmapRequest vvar;
  vvar.address = start;
  vvar.length = kPageSize;
  vvar.protection = PROT_READ;
  vvar.flags = MAP_PRIVATE | MAP_FIXED;
  vvar.mappable = vvar_;
  vvar.name = "[vvar]";
  TRY(memory.Mmap(vvar));
  MmapRequest image;
  image.address = start + kPageSize;
  image.length = rounded;
  image.protection = PROT_READ | PROT_EXEC;
  image.flags = MAP_PRIVATE | MAP_FIXED;
  image.mappable = image_;
  image.name = "[vdso]";
  TRY(memory.Mmap(image));
  return image.address;
}

int64_t Vdso::MonotonicNs() const { return Read().monotonic_ns; }
int64_t Vdso::RealtimeNs() const { return Read().realtime_ns; }

Vdso::Reading Vdso::Read() const {
  Reading reading;
  return ReadLine(&reading) ? reading : Renew();
}

bool Vdso::ReadLine(Reading* reading) const {
  for (int attempt = 0; attempt < 16; attempt++) {
    const uint32_t before = __atomic_load_n(&page_->sequence, __ATOMIC_ACQUIRE);
    if ((before & 1) != 0) continue;
    const uint32_t mode = Load(page_->mode);
    const uint64_t delta = counter_.read(counter_.context) - Load(page_->tsc_base);
    const uint64_t valid = Load(page_->valid_ticks);
    const uint64_t advance = Scale(delta, Load(page_->multiplier));
    const int64_t base = Load(page_->monotonic_base_ns);
    const int64_t offset = Load(page_->realtime_offset_ns);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (Load(page_->sequence) != before) continue;
    if (mode != kVvarCounter || delta > valid) return false;
    reading->monotonic_ns = base + static_cast<int64_t>(advance);
    reading->realtime_ns = reading->monotonic_ns + offset;
    return true;
  }
  return false;
}

// Several tries: the narrowest was disturbed least.
Vdso::Sample Vdso::Take() const {
  Sample best;
  best.width_ticks = std::numeric_limits<uint64_t>::max();
  for (int attempt = 0; attempt < kSamplesMax; attempt++) {
    Sample sample;
    const uint64_t before = counter_.read(counter_.context);
    sample.monotonic_ns = host_.MonotonicNs();
    const uint64_t after = counter_.read(counter_.context);
    sample.realtime_ns = host_.RealtimeNs();
    const uint64_t end = counter_.read(counter_.context);
    sample.width_ticks = after - before;
    sample.ticks = before + (after - before) / 2;
    // Realtime belongs to a moment a little later: half of each step.
    if (sample.width_ticks + (end - after) < best.width_ticks) {
      best = sample;
      best.width_ticks += end - after;
    }
  }
  return best;
}

void Vdso::Publish(const VvarPage& line) const {
  const uint32_t sequence = Load(page_->sequence);
  Store(page_->sequence, sequence + 1);
  std::atomic_thread_fence(std::memory_order_release);
  Store(page_->mode, line.mode);
  Store(page_->tsc_base, line.tsc_base);
  Store(page_->valid_ticks, line.valid_ticks);
  Store(page_->multiplier, line.multiplier);
  Store(page_->monotonic_base_ns, line.monotonic_base_ns);
  Store(page_->realtime_offset_ns, line.realtime_offset_ns);
  __atomic_store_n(&page_->sequence, sequence + 2, __ATOMIC_RELEASE);
}

Vdso::Reading Vdso::Renew() const {
  absl::MutexLock lock(&mu_);
  Reading reading;
  if (ReadLine(&reading)) return reading;
  const Sample now = Take();
  // The largest time that anybody can have read off the old line.
  if (Load(page_->mode) == kVvarCounter) {
    const uint64_t ticks = std::min(now.ticks - Load(page_->tsc_base), Load(page_->valid_ticks));
    last_ns_ = std::max(last_ns_, Load(page_->monotonic_base_ns) +
                                      static_cast<int64_t>(Scale(ticks, Load(page_->multiplier))));
  }
  reading.monotonic_ns = last_ns_ = std::max(last_ns_, now.monotonic_ns);
  const int64_t old_offset = Load(page_->realtime_offset_ns);
  int64_t offset = now.realtime_ns - now.monotonic_ns;
  if (std::abs(offset - old_offset) < kOffsetNoiseNs) offset = old_offset;
  reading.realtime_ns = reading.monotonic_ns + offset;
  if (!usable_) return reading;

  VvarPage line{};
  line.mode = kVvarSystemCall;
  line.realtime_offset_ns = offset;
  const int64_t baseline_ns = now.monotonic_ns - reference_.monotonic_ns;
  const uint64_t baseline_ticks = now.ticks - reference_.ticks;
  if (now.ticks <= reference_.ticks || baseline_ns < 0) {
    // It went backwards: a suspended or migrated machine. From the start.
    reference_ = now;
    Publish(line);
    return reading;
  }
  if (baseline_ns < kBaselineMinNs) {
    Publish(line);
    return reading;
  }
  const auto multiplier =
      static_cast<uint64_t>((Wide{static_cast<uint64_t>(baseline_ns)} << 32) / baseline_ticks);
  const int64_t valid_ns = std::min(baseline_ns / kValidFraction, kValidMaxNs);
  const int64_t ahead_ns = reading.monotonic_ns - now.monotonic_ns;
  line.mode = multiplier == 0 ? kVvarSystemCall : kVvarCounter;
  line.tsc_base = now.ticks;
  line.monotonic_base_ns = reading.monotonic_ns;
  line.valid_ticks =
      multiplier == 0
          ? 0
          : static_cast<uint64_t>((Wide{static_cast<uint64_t>(valid_ns)} << 32) / multiplier);
  // Being ahead is made good over the life of the line; by half its speed at most.
  const int64_t slower_ns = std::min(ahead_ns, valid_ns / 2);
  line.multiplier =
      multiplier - static_cast<uint64_t>(Wide{multiplier} * static_cast<uint64_t>(slower_ns) /
                                         static_cast<uint64_t>(valid_ns));
  Publish(line);
  if (baseline_ns > kBaselineMaxNs) reference_ = now;
  return reading;
}

}  // namespace sentry
