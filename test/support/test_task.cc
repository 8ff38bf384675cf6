#include "test/support/test_task.h"

#include <linux/sched.h>
#include <signal.h>
#include <sys/mman.h>

#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/task_clone.h"

namespace test {
namespace {

constexpr uint64_t kPoolBytes = uint64_t{1} << 32;

void MapFixed(sentry::MemoryManager& memory, uint64_t address, uint64_t length) {
  sentry::MmapRequest request;
  request.address = address;
  request.length = length;
  request.protection = PROT_READ | PROT_WRITE;
  request.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  RAVELIN_CHECK(memory.Mmap(request).ok());
}

}  // namespace

TestTask::TestTask() {
  auto pool = platform::MemoryPool::Create(kPoolBytes);
  RAVELIN_CHECK(pool.ok());
  pool_ = std::move(pool).value();
  sentry::KernelOptions options;
  options.memory_bytes = uint64_t{1} << 30;
  kernel_ =
      std::make_unique<sentry::Kernel>(platform_, *pool_, dispatcher_, clock_, random_, options);
  auto root = sentry::Tmpfs::Create(*pool_, clock_, {});
  RAVELIN_CHECK(kernel_->vfs().MountRoot(root, "none", 0).ok());
  auto init = kernel_->MakeProcess({}, true);
  RAVELIN_CHECK(init.ok());
  init_ = init.value();
  sentry::CloneArguments arguments;
  arguments.exit_signal = SIGCHLD;
  auto task = sentry::TaskClone::CloneWithoutThread(*init_, arguments);
  RAVELIN_CHECK(task.ok());
  task_ = task.value();
  MapFixed(task_->memory(), kPage, kPageEnd - kPage);
  MapFixed(task_->memory(), kArea, kAreaBytes);
  // What the run loop does before the first guest instruction.
  RAVELIN_CHECK(init_->PrepareReturnToGuest() && task_->PrepareReturnToGuest());
  RAVELIN_CHECK(Call(112) == 2);  // setsid
}

TestTask::~TestTask() {
  // Those without a host thread leave here; the kernel waits for the others.
  kernel_->KillAll();
  for (const sentry::TaskRef& task : kernel_->pids().Tasks()) {
    if (!task->HasHostThread() && !task->HasExited()) task->Exit();
  }
}

int64_t TestTask::DispatchAs(sentry::Task& task, uint64_t number, const uint64_t (&registers)[6]) {
  return kernel_->dispatcher().Dispatch(task, number, registers);
}

uint64_t TestTask::PokeString(uint64_t address, std::string_view text) {
  PokeBytes(address, std::as_bytes(std::span(text)));
  Poke(address + text.size(), char{0});
  return address;
}

std::string TestTask::PeekString(uint64_t address) {
  auto text = task_->memory().CopyInString(base::UserAddr(address), 4096);
  RAVELIN_CHECK(text.ok());
  return std::move(text).value();
}

void TestTask::PeekBytes(uint64_t address, std::span<std::byte> out) {
  RAVELIN_CHECK(task_->memory().CopyInExactly(base::UserAddr(address), out).ok());
}

void TestTask::PokeBytes(uint64_t address, std::span<const std::byte> data) {
  RAVELIN_CHECK(task_->memory().CopyOutExactly(base::UserAddr(address), data).ok());
}

sentry::TaskRef TestTask::MakeThread() {
  sentry::CloneArguments arguments;
  arguments.flags = CLONE_THREAD | CLONE_SIGHAND | CLONE_VM | CLONE_FILES | CLONE_FS;
  auto made = sentry::TaskClone::CloneWithoutThread(*task_, arguments);
  RAVELIN_CHECK(made.ok() && made.value()->PrepareReturnToGuest());
  return made.value();
}

sentry::TaskRef TestTask::MakeChild() {
  sentry::CloneArguments arguments;
  arguments.exit_signal = SIGCHLD;
  auto made = sentry::TaskClone::CloneWithoutThread(*task_, arguments);
  RAVELIN_CHECK(made.ok() && made.value()->PrepareReturnToGuest());
  return made.value();
}

void TestTask::Exit(sentry::Task& task, int32_t status) {
  task.RequestExit(status);
  task.Exit();
}

}  // namespace test
