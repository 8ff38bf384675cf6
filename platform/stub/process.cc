#include "platform/stub/process.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <new>
#include <utility>

#include "platform/base/check.h"
#include "platform/base/user_addr.h"
#include "platform/stub/futex.h"
#include "platform/stub/layout.h"
#include "platform/stub/stub_calls.h"

namespace platform {
namespace {

using base::Errno;
using base::Result;

constexpr uint32_t kResultMask = 0xff;
constexpr uint32_t kSuccess = 1;
constexpr size_t kAnswersPerPage = base::kPageSize / sizeof(Answers);

}  // namespace

StubProcess::StubProcess(MemoryPool& control, const CpuSet& cpus, const StubOptions& options,
                         PoolRange command_range)
    : control_(control),
      cpus_(cpus),
      options_(options),
      command_range_(command_range),
      page_(*new(control.Window(command_range).data()) CommandPage) {
  page_.control_fd = static_cast<uint64_t>(control.fd());
  page_.page_offset = command_range.start;
}

StubProcess::~StubProcess() {
  if (spawned_.pid != 0 && !dead()) Kill();
  for (const auto& thread : threads_) control_.DropReference(thread->range);
  for (const PoolRange& page : answer_pages_) control_.DropReference(page);
  control_.DropReference(command_range_);
}

Result<std::shared_ptr<StubProcess>> StubProcess::Create(MemoryPool& control, Spawner& spawner,
                                                         const CpuSet& cpus,
                                                         const StubOptions& options) {
  const PoolRange range = TRY(control.Allocate(base::kPageSize));
  std::shared_ptr<StubProcess> process(new StubProcess(control, cpus, options, range));
  // Its first batch waits for it: one round trip for the process and its first guest thread.
  StubThread* thread = TRY(process->AddThread());
  absl::MutexLock lock(&process->channel_mu_);
  const ThreadCommands commands = process->CommandsToStartLocked(*thread);
  process->WriteBatchLocked(commands);
  process->spawned_ = TRY(spawner.Spawn(range.start));
  // The death of a process this young is seen by nobody else yet.
  uint32_t result = 0;
  while (((result = process->page_.result.load()) & kResultMask) == 0) {
    const timespec timeout{0, 100'000'000};
    FutexWait(process->page_.result, result, &timeout);
    if ((process->page_.result.load() & kResultMask) == 0 && process->HasEnded()) {
      process->dead_ = true;
      return Errno(ESRCH);
    }
  }
  if ((result & kResultMask) != kSuccess) {
    return Errno(static_cast<int>((result & kResultMask) - 1));
  }
  thread->tid = static_cast<pid_t>(process->page_.value.load());
  return process;
}

Result<void> StubProcess::AwaitFirstThread() {
  StubThread* thread = nullptr;
  {
    absl::MutexLock lock(&threads_mu_);
    thread = threads_.front().get();
  }
  TRY(AwaitStart(*thread));
  ReleaseThread(thread);
  return {};
}

bool StubProcess::HasEnded() const {
  pollfd poller{pidfd(), POLLIN, 0};
  return poll(&poller, 1, 0) > 0;
}

Result<void> StubProcess::Run(std::span<const CommandEntry> entries) {
  absl::MutexLock lock(&channel_mu_);
  while (!entries.empty()) {
    const size_t count = std::min<size_t>(entries.size(), COMMAND_ENTRIES_MAX);
    TRY(RunLocked(entries.first(count)));
    entries = entries.subspan(count);
  }
  return {};
}

void StubProcess::WriteBatchLocked(std::span<const CommandEntry> entries) {
  std::copy(entries.begin(), entries.end(), page_.entries.begin());
  page_.count.store(static_cast<uint32_t>(entries.size()), std::memory_order_relaxed);
  page_.result.store(0);
}

Result<void> StubProcess::RunLocked(std::span<const CommandEntry> entries) {
  WriteBatchLocked(entries);
  // After the store: MarkDead sets the flag first and the result second, so one of us sees it.
  if (dead()) return Errno(ESRCH);
  // We sleep until it is done, so it may as well be done here: see cpu_pair.h.
  const int cpu = StayOnCpu();
  if (cpu != memory_cpu_) {
    PinThread(pid(), cpu);
    memory_cpu_ = cpu;
  }
  page_.sequence.fetch_add(1);
  FutexWake(page_.sequence);
  return AwaitResultLocked();
}

Result<void> StubProcess::AwaitResultLocked() {
  uint32_t result = 0;
  while (((result = page_.result.load()) & kResultMask) == 0) {
    // A death is told by MarkDead, but a traced thread that died holds its process up.
    const timespec timeout{0, 100'000'000};
    FutexWait(page_.result, result, options_.traced ? &timeout : nullptr);
    if (options_.traced) ReapTracees(/*all=*/false);
  }
  if (dead()) return Errno(ESRCH);
  const uint32_t code = result & kResultMask;
  if (code != kSuccess) return Errno(static_cast<int>(code - 1));
  return {};
}

Result<StubThread*> StubProcess::AcquireThread() {
  {
    absl::MutexLock lock(&threads_mu_);
    if (dead()) return Errno(ESRCH);
    if (!idle_.empty()) {
      StubThread* thread = idle_.back();
      idle_.pop_back();
      return thread;
    }
  }
  return CreateThread();
}

size_t StubProcess::thread_count() const {
  absl::MutexLock lock(&threads_mu_);
  return threads_.size();
}

void StubProcess::ReleaseThread(StubThread* thread) {
  absl::MutexLock lock(&threads_mu_);
  idle_.push_back(thread);
}

Result<StubThread*> StubProcess::AddThread() {
  const PoolRange range = TRY(control_.Allocate(CONTEXT_BYTES));
  absl::MutexLock lock(&threads_mu_);
  const size_t index = threads_.size();
  Result<void> room = index < CONTEXTS_MAX ? AddAnswersLocked(index) : Errno(EAGAIN);
  if (!room.ok()) {
    control_.DropReference(range);
    return room.error();
  }
  std::byte* region = control_.Window(range).data();
  const uint64_t address = STUB_CONTEXTS + index * CONTEXT_BYTES;
  std::byte* page = control_.Window(answer_pages_[index / kAnswersPerPage]).data();
  auto* line = page + index % kAnswersPerPage * sizeof(Answers);
  threads_.push_back(
      std::unique_ptr<StubThread>(new StubThread{.context = *new (region) ThreadContext{},
                                                 .region = region,
                                                 .stub_address = address,
                                                 .range = range,
                                                 .answers = *new (line) Answers{}}));
  return threads_.back().get();
}

Result<void> StubProcess::AddAnswersLocked(size_t index) {
  if (index < answer_pages_.size() * kAnswersPerPage) return {};
  answer_pages_.push_back(TRY(control_.Allocate(base::kPageSize)));
  return {};
}

Result<StubThread*> StubProcess::CreateThread() {
  absl::MutexLock channel(&channel_mu_);
  StubThread* thread = TRY(AddThread());
  Result<void> started = RunLocked(CommandsToStartLocked(*thread));
  if (started.ok()) {
    thread->tid = static_cast<pid_t>(page_.value.load());
    cpus_.Free(thread->tid);  // It has the memory thread's CPU.
    started = AwaitStart(*thread);
  }
  if (!started.ok()) {
    // Guest threads can write what is mapped: unless it is gone for sure, it stays this process's.
    const CommandEntry unmap = {SYS_munmap, {thread->stub_address, CONTEXT_BYTES}, 0};
    if (thread->tid == 0 && RunLocked({&unmap, 1}).ok()) {
      const PoolRange range = thread->range;
      absl::MutexLock lock(&threads_mu_);
      threads_.pop_back();
      control_.DropReference(range);
    }
    return started.error();
  }
  return thread;
}

StubProcess::ThreadCommands StubProcess::CommandsToStartLocked(StubThread& thread) {
  thread.context.state = STATE_STARTING;
  thread.context.sentry_sleeps = 1;
  page_.stack = {.sp = thread.stub_address + CONTEXT_STACK,
                 .flags = 0,
                 .pad = 0,
                 .size = CONTEXT_BYTES - CONTEXT_STACK};
  const auto control = static_cast<uint64_t>(control_.fd());
  ThreadCommands commands;
  const size_t index = (thread.stub_address - STUB_CONTEXTS) / CONTEXT_BYTES;
  if (index % kAnswersPerPage == 0) {  // The first one on its page of answers.
    absl::MutexLock lock(&threads_mu_);
    const size_t page = index / kAnswersPerPage;
    commands.push_back({SYS_mmap,
                        {STUB_ANSWERS + page * base::kPageSize, base::kPageSize, PROT_READ,
                         MAP_SHARED | MAP_FIXED, control, answer_pages_[page].start},
                        0});
  }
  commands.push_back({SYS_mmap,
                      {thread.stub_address, CONTEXT_BYTES, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_FIXED | MAP_POPULATE, control, thread.range.start},
                      0});
  commands.push_back({SYS_clone,
                      {kCloneThread, 0, 0, 0, thread.stub_address, options_.thread_mode},
                      ENTRY_REPORTS_VALUE});
  return commands;
}

Result<void> StubProcess::AwaitStart(StubThread& thread) {
  ThreadContext& context = thread.context;
  while (context.state.load() == STATE_STARTING && !dead()) {
    FutexWait(context.state, STATE_STARTING);
  }
  if (dead()) return Errno(ESRCH);
  context.sentry_sleeps = 0;
  return {};
}

void StubProcess::SendKill() { syscall(SYS_pidfd_send_signal, pidfd(), SIGKILL, nullptr, 0); }

void StubProcess::Kill() {
  SendKill();
  if (options_.traced) ReapTracees(/*all=*/true);
  pollfd poller{pidfd(), POLLIN, 0};
  while (poll(&poller, 1, -1) < 0 && errno == EINTR) {
  }
  MarkDead();
}

void StubProcess::ReapTracees(bool all) {
  std::vector<pid_t> tids;
  {
    absl::MutexLock lock(&threads_mu_);
    for (const auto& thread : threads_) tids.push_back(thread->tid);
  }
  for (pid_t tid : tids) {
    for (;;) {
      // Looks without taking: a stop of a living thread is its tracer's to see. ECHILD: not traced.
      siginfo_t info{};
      const int options = WEXITED | WNOWAIT | __WALL | (all ? 0 : WNOHANG);
      if (tid == 0 || waitid(P_PID, static_cast<id_t>(tid), &info, options) != 0) break;
      if (info.si_pid == 0) break;
      const bool stopped = info.si_code == CLD_TRAPPED || info.si_code == CLD_STOPPED;
      if (stopped && !all) break;
      if (waitid(P_PID, static_cast<id_t>(tid), &info, WEXITED | __WALL) != 0 || !stopped) break;
    }
  }
}

void StubProcess::MarkDead() {
  dead_.store(true);
  page_.result.store(kSuccess + ESRCH);
  FutexWake(page_.result);
  absl::MutexLock lock(&threads_mu_);
  for (const auto& thread : threads_) {
    thread->context.state.store(STATE_SENTRY);
    FutexWake(thread->context.state);
  }
}

}  // namespace platform
