#include "sentry/kernel/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <thread>

#include "catch2/catch.hpp"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "syscalls/abi/futex.h"
#include "syscalls/abi/time.h"
#include "test/support/test_task.h"

namespace {

using syscalls::abi::FutexWaitv;
using syscalls::abi::Timespec;
using test::TestTask;

constexpr uint64_t kWord = TestTask::kPage;
constexpr uint64_t kWord2 = TestTask::kPage + 64;
constexpr uint64_t kTime = TestTask::kPage + 128;

int64_t Futex(TestTask& task, uint64_t address, int operation, uint32_t value, uint64_t timeout = 0,
              uint64_t address2 = 0, uint32_t value3 = 0) {
  return task.Call(SYS_futex, address, operation, value, timeout, address2, value3);
}

// Another thread of the guest in a system call of its own.
class Sleeper {
 public:
  template <typename... Args>
  explicit Sleeper(TestTask& task, Args... args)
      : task_(task.MakeThread()),
        thread_([this, &task, args...] { result = task.CallAs(*task_, SYS_futex, args...); }) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  ~Sleeper() {
    Join();
    TestTask::Exit(*task_, 0);
  }
  void Join() {
    if (thread_.joinable()) thread_.join();
  }
  uint32_t tid() const { return static_cast<uint32_t>(task_->tid()); }
  sentry::Task& task() { return *task_; }
  std::atomic<int64_t> result{INT64_MIN};

 private:
  sentry::TaskRef task_;
  std::thread thread_;
};

TEST_CASE("a futex wait faults, mismatches and times out", "[syscalls][futex][efault]") {
  TestTask task;
  CHECK(Futex(task, TestTask::kPageEnd, FUTEX_WAIT_PRIVATE, 0) == -EFAULT);
  CHECK(Futex(task, kWord + 2, FUTEX_WAIT_PRIVATE, 0) == -EINVAL);
  CHECK(Futex(task, kWord, FUTEX_WAIT_PRIVATE, 1) == -EAGAIN);
  task.Poke(kTime, Timespec{0, 1'000'000});
  CHECK(Futex(task, kWord, FUTEX_WAIT_PRIVATE, 0, kTime) == -ETIMEDOUT);
  task.Poke(kTime, Timespec{0, 1'000'000'000});
  CHECK(Futex(task, kWord, FUTEX_WAIT_PRIVATE, 0, kTime) == -EINVAL);
  CHECK(Futex(task, kWord, FUTEX_WAIT_PRIVATE, 0, TestTask::kPageEnd - 15) == -EFAULT);
  CHECK(Futex(task, kWord, FUTEX_WAIT_BITSET_PRIVATE, 0, 0, 0, 0) == -EINVAL);
  CHECK(Futex(task, kWord, FUTEX_WAKE_BITSET_PRIVATE, 1, 0, 0, 0) == -EINVAL);
  CHECK(Futex(task, kWord, FUTEX_WAKE_PRIVATE | FUTEX_CLOCK_REALTIME, 1) == -ENOSYS);
  CHECK(Futex(task, kWord, FUTEX_FD, 1) == -ENOSYS);
}

TEST_CASE("a pending signal makes a wait restart, or resume with the same end",
          "[syscalls][futex]") {
  TestTask task;
  REQUIRE(task.task().SendSignal(sentry::SignalInfo::FromUser(SIGUSR1, 1, 0)).ok());
  CHECK(Futex(task, kWord, FUTEX_WAIT_PRIVATE, 0) == -base::kRestartSys.value());
  task.Poke(kTime, Timespec{10, 0});
  CHECK(Futex(task, kWord, FUTEX_WAIT_PRIVATE, 0, kTime) == -base::kRestartBlock.value());
  CHECK(Futex(task, kWord, FUTEX_LOCK_PI_PRIVATE, 0) == 0);
}

TEST_CASE("a wake-up reaches a sleeping thread", "[syscalls][futex]") {
  TestTask task;
  Sleeper sleeper(task, kWord, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
  CHECK(Futex(task, kWord2, FUTEX_WAKE_PRIVATE, 1) == 0);
  CHECK(Futex(task, kWord, FUTEX_WAKE_PRIVATE, 1) == 1);
  sleeper.Join();
  CHECK(sleeper.result == 0);
}

TEST_CASE("requeued waiters are found at the new word only", "[syscalls][futex]") {
  TestTask task;
  Sleeper sleeper(task, kWord, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
  CHECK(Futex(task, kWord, FUTEX_CMP_REQUEUE_PRIVATE, 0, 5, kWord2, 1) == -EAGAIN);
  CHECK(Futex(task, kWord, FUTEX_CMP_REQUEUE_PRIVATE, 0, 5, kWord2, 0) == 1);
  CHECK(Futex(task, kWord, FUTEX_WAKE_PRIVATE, 1) == 0);
  CHECK(Futex(task, kWord2, FUTEX_WAKE_PRIVATE, 1) == 1);
  sleeper.Join();
  CHECK(sleeper.result == 0);
  CHECK(Futex(task, kWord, FUTEX_REQUEUE_PRIVATE, ~0U, 0, kWord2) == -EINVAL);
}

TEST_CASE("futex_waitv takes 1 to 128 words of 32 bits", "[syscalls][futex][limits]") {
  TestTask task;
  for (uint64_t i = 0; i < 129; ++i) {
    task.Poke(TestTask::kArea + i * sizeof(FutexWaitv), FutexWaitv{0, kWord, 2 | 128, 0});
  }
  task.Poke(kTime, Timespec{0, 0});
  CHECK(task.Call(449, TestTask::kArea, 0, 0, kTime, CLOCK_MONOTONIC) == -EINVAL);
  CHECK(task.Call(449, TestTask::kArea, 129, 0, kTime, CLOCK_MONOTONIC) == -EINVAL);
  CHECK(task.Call(449, TestTask::kArea, 128, 0, kTime, CLOCK_MONOTONIC) == -ETIMEDOUT);
  CHECK(task.Call(449, TestTask::kArea, 1, 1, kTime, CLOCK_MONOTONIC) == -EINVAL);
  CHECK(task.Call(449, TestTask::kArea, 1, 0, kTime, CLOCK_BOOTTIME) == -EINVAL);
  task.Poke(TestTask::kArea, FutexWaitv{uint64_t{1} << 32, kWord, 2, 0});
  CHECK(task.Call(449, TestTask::kArea, 1, 0, kTime, CLOCK_MONOTONIC) == -EINVAL);
  task.Poke(TestTask::kArea, FutexWaitv{0, kWord, 3, 0});
  CHECK(task.Call(449, TestTask::kArea, 1, 0, kTime, CLOCK_MONOTONIC) == -EINVAL);
  task.Poke(TestTask::kArea, FutexWaitv{0, kWord, 2, 1});
  CHECK(task.Call(449, TestTask::kArea, 1, 0, kTime, CLOCK_MONOTONIC) == -EINVAL);
}

TEST_CASE("a PI lock passes to its waiter before that runs", "[syscalls][futex][pi]") {
  TestTask task;
  const uint32_t own = static_cast<uint32_t>(task.task().tid());
  REQUIRE(Futex(task, kWord, FUTEX_LOCK_PI_PRIVATE, 0) == 0);
  CHECK(task.Peek<uint32_t>(kWord) == own);
  CHECK(Futex(task, kWord, FUTEX_LOCK_PI_PRIVATE, 0) == -EDEADLK);
  Sleeper sleeper(task, kWord, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
  CHECK(task.Peek<uint32_t>(kWord) == (own | FUTEX_WAITERS));
  CHECK(Futex(task, kWord, FUTEX_WAKE_PRIVATE, 1) == -EINVAL);
  CHECK(Futex(task, kWord, FUTEX_UNLOCK_PI_PRIVATE, 0) == 0);
  CHECK(task.Peek<uint32_t>(kWord) == (sleeper.tid() | FUTEX_WAITERS));
  CHECK(Futex(task, kWord, FUTEX_TRYLOCK_PI_PRIVATE, 0) == -EAGAIN);
  CHECK(Futex(task, kWord, FUTEX_UNLOCK_PI_PRIVATE, 0) == -EPERM);
  sleeper.Join();
  CHECK(sleeper.result == 0);
}

TEST_CASE("the exit of an owner hands its PI locks over, marked", "[syscalls][futex][pi]") {
  TestTask task;
  const sentry::TaskRef owner = task.MakeThread();
  REQUIRE(task.CallAs(*owner, SYS_futex, kWord, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0) == 0);
  Sleeper sleeper(task, kWord, FUTEX_LOCK_PI_PRIVATE, 0, 0, 0, 0);
  TestTask::Exit(*owner, 0);
  sleeper.Join();
  CHECK(sleeper.result == 0);
  CHECK(task.Peek<uint32_t>(kWord) == (sleeper.tid() | FUTEX_WAITERS | FUTEX_OWNER_DIED));
}

TEST_CASE("a condition's waiters get the PI lock in turn", "[syscalls][futex][pi]") {
  TestTask task;
  Sleeper first(task, kWord, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, 0, kWord2, 0);
  Sleeper second(task, kWord, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, 0, kWord2, 0);
  CHECK(Futex(task, kWord, FUTEX_WAKE_PRIVATE, 1) == -EINVAL);
  CHECK(Futex(task, kWord, FUTEX_CMP_REQUEUE_PI_PRIVATE, 2, 1, kWord2, 0) == -EINVAL);
  CHECK(Futex(task, kWord, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 1, kWord2, 1) == -EAGAIN);
  CHECK(Futex(task, kWord, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 1, kWord2, 0) == 2);
  first.Join();
  CHECK(first.result == 0);
  CHECK(second.result == INT64_MIN);
  CHECK(task.Peek<uint32_t>(kWord2) == (first.tid() | FUTEX_WAITERS));
  CHECK(task.CallAs(first.task(), SYS_futex, kWord2, FUTEX_UNLOCK_PI_PRIVATE, 0, 0, 0, 0) == 0);
  second.Join();
  CHECK(second.result == 0);
}

TEST_CASE("a robust list is walked at exit, in spite of circles and bad pointers",
          "[syscalls][futex][robust]") {
  TestTask task;
  const sentry::TaskRef dying = task.MakeThread();
  const uint32_t tid = static_cast<uint32_t>(dying->tid());
  constexpr uint64_t kHead = TestTask::kArea;
  constexpr uint64_t kEntry = TestTask::kArea + 256;
  const bool circle = GENERATE(false, true);
  // The list's only entry points to itself, or to nowhere: either must end.
  task.Poke(kHead, std::array<uint64_t, 3>{kEntry, 32, 0});
  task.Poke(kEntry, circle ? kEntry : uint64_t{0x77777000});
  task.Poke(kEntry + 32, tid | FUTEX_WAITERS);
  REQUIRE(task.CallAs(*dying, SYS_set_robust_list, kHead, 24) == 0);
  CHECK(task.CallAs(*dying, SYS_set_robust_list, kHead, 23) == -EINVAL);
  Sleeper sleeper(task, kEntry + 32, FUTEX_WAIT, tid | FUTEX_WAITERS, 0, 0, 0);
  TestTask::Exit(*dying, 0);
  sleeper.Join();
  CHECK(sleeper.result == 0);
  CHECK(task.Peek<uint32_t>(kEntry + 32) == (FUTEX_WAITERS | FUTEX_OWNER_DIED));
}

}  // namespace
