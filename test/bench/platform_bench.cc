// What the platforms cost: a system call's round trip (alone, and with several guest threads at
// once), a fault, mapping, and a new address space.
//
// Google Benchmark's real time is what counts: half the work happens in other processes.

#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "platform/memory/memory_pool.h"
#include "platform/platform.h"
#include "platform/platform_factory.h"

namespace {

using platform::Event;
using platform::EventKind;
using platform::MemoryPool;
using platform::Platform;
using platform::PlatformKind;
using platform::PoolRange;
using platform::Registers;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kCode = 0x400000;
constexpr uint64_t kData = 0x500000;
// loop: syscall; jmp loop
constexpr char kLoop[] = "\x0f\x05\xeb\xfc";
// loop: mov $600,%ecx; spin: dec %ecx; jnz spin; syscall; jmp loop. About 0.2 us of work.
constexpr char kWorkLoop[] = "\xb9\x58\x02\x00\x00\xff\xc9\x75\xfc\x0f\x05\xeb\xf3";
constexpr uint64_t kWorkLoopOffset = 256;
// The same two with a call at the entry for rewritten calls: lea back(%rip),%rcx; movabs
// $entry,%r11; jmp *%r11.
constexpr char kEntryLoop[] =
    "\x48\x8d\x0d\x0d\x00\x00\x00\x49\xbb\0\0\0\0\0\0\0\0\x41\xff\xe3\xeb\xea";
constexpr char kEntryWorkLoop[] =
    "\xb9\x58\x02\x00\x00\xff\xc9\x75\xfc"
    "\x48\x8d\x0d\x0d\x00\x00\x00\x49\xbb\0\0\0\0\0\0\0\0\x41\xff\xe3\xeb\xe1";
constexpr uint64_t kEntryLoopOffset = 512;
constexpr uint64_t kEntryWorkLoopOffset = 768;
constexpr uint64_t kEntryAddressOffset = 9;  // Where the entry's address goes in kEntryLoop.
constexpr uint64_t kWorkBytes = 9;

struct Host {
  std::unique_ptr<MemoryPool> pool = MemoryPool::Create().value();
  std::unique_ptr<Platform> systrap = Make(PlatformKind::kSystrap);
  std::unique_ptr<Platform> ptrace = Make(PlatformKind::kPtrace);
  PoolRange code = pool->Allocate(kPage).value();

  Host() {
    memcpy(pool->Window(code).data(), kLoop, sizeof(kLoop));
    std::byte* target = pool->Window(code).data();
    memcpy(target + kWorkLoopOffset, kWorkLoop, sizeof(kWorkLoop));
    memcpy(target + kEntryLoopOffset, kEntryLoop, sizeof(kEntryLoop));
    memcpy(target + kEntryWorkLoopOffset, kEntryWorkLoop, sizeof(kEntryWorkLoop));
    const uint64_t entry = systrap->syscall_entry();
    memcpy(target + kEntryLoopOffset + kEntryAddressOffset, &entry, sizeof(entry));
    memcpy(target + kEntryWorkLoopOffset + kWorkBytes + kEntryAddressOffset, &entry, sizeof(entry));
  }
  std::unique_ptr<Platform> Make(PlatformKind kind) {
    auto made = platform::CreatePlatform(kind, *pool);
    if (!made.ok()) {
      fprintf(stderr, "%s\n", made.status().ToString().c_str());
      exit(1);
    }
    return *std::move(made);
  }
};

Host& TheHost() {
  static Host host;
  return host;
}

Platform& Chosen(const benchmark::State& state) {
  return state.range(0) == 0 ? *TheHost().systrap : *TheHost().ptrace;
}

std::unique_ptr<platform::AddressSpace> SpaceWithCode(Platform& platform) {
  auto space = platform.NewAddressSpace().value();
  space
      ->Map({.address = kCode,
             .length = kPage,
             .host_fd = TheHost().pool->fd(),
             .offset = TheHost().code.start,
             .protection = PROT_READ | PROT_EXEC,
             .populate = true})
      .value();
  return space;
}

void RoundTrips(benchmark::State& state, uint64_t entry) {
  Platform& platform = Chosen(state);
  auto space = SpaceWithCode(platform);
  auto context = platform.NewContext().value();
  Registers registers;
  registers.rip = entry;
  for (auto _ : state) {
    registers.rax = SYS_getppid;
    if (context->Switch(*space, registers).kind != EventKind::kSyscall) {
      state.SkipWithError("no system call");
      break;
    }
  }
}

void RoundTrip(benchmark::State& state) { RoundTrips(state, kCode); }
void RoundTripWithWork(benchmark::State& state) { RoundTrips(state, kCode + kWorkLoopOffset); }
void EntryRoundTrip(benchmark::State& state) { RoundTrips(state, kCode + kEntryLoopOffset); }
void EntryRoundTripWithWork(benchmark::State& state) {
  RoundTrips(state, kCode + kEntryWorkLoopOffset);
}
void Native(benchmark::State& state) {
  for (auto _ : state) syscall(SYS_getppid);
}

void Fault(benchmark::State& state) {
  Platform& platform = Chosen(state);
  auto space = SpaceWithCode(platform);
  auto context = platform.NewContext().value();
  Registers registers;
  registers.rip = kData;
  for (auto _ : state) {
    if (context->Switch(*space, registers).kind != EventKind::kFault) {
      state.SkipWithError("no fault");
      break;
    }
  }
}

void MapUnmap(benchmark::State& state) {
  Platform& platform = Chosen(state);
  auto space = SpaceWithCode(platform);
  const PoolRange data = TheHost().pool->Allocate(4 * kPage).value();
  for (auto _ : state) {
    const bool mapped = space
                            ->Map({.address = kData,
                                   .length = 4 * kPage,
                                   .host_fd = TheHost().pool->fd(),
                                   .offset = data.start,
                                   .protection = PROT_READ | PROT_WRITE})
                            .ok();
    if (!mapped || !space->Unmap(kData, 4 * kPage).ok()) {
      state.SkipWithError("refused");
      break;
    }
  }
  TheHost().pool->DropReference(data);
}

void NewAddressSpace(benchmark::State& state) {
  Platform& platform = Chosen(state);
  for (auto _ : state) {
    auto space = platform.NewAddressSpace();
    if (!space.ok()) {
      state.SkipWithError("refused");
      break;
    }
  }
}

// What fork or exec wait for: a process, its code, the first system call, the end.
void NewAddressSpaceAndRun(benchmark::State& state) {
  Platform& platform = Chosen(state);
  for (auto _ : state) {
    auto context = platform.NewContext().value();
    auto space = SpaceWithCode(platform);
    Registers registers;
    registers.rip = kCode;
    if (context->Switch(*space, registers).kind != EventKind::kSyscall) {
      state.SkipWithError("no system call");
      break;
    }
    context.reset();
  }
}

BENCHMARK(RoundTrip)->ArgName("ptrace")->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(RoundTripWithWork)->ArgName("ptrace")->Arg(0)->Arg(1)->UseRealTime()->ThreadRange(1, 4);
BENCHMARK(EntryRoundTrip)->ArgName("ptrace")->Arg(0)->UseRealTime();
BENCHMARK(EntryRoundTripWithWork)->ArgName("ptrace")->Arg(0)->UseRealTime()->ThreadRange(1, 16);
BENCHMARK(Native)->UseRealTime();
BENCHMARK(Fault)->ArgName("ptrace")->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(MapUnmap)->ArgName("ptrace")->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(NewAddressSpace)->ArgName("ptrace")->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(NewAddressSpaceAndRun)->ArgName("ptrace")->Arg(0)->Arg(1)->UseRealTime();

}  // namespace

int main(int argc, char** argv) {
  TheHost();  // On the main thread, which outlives the spawners.
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
