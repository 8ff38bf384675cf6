// futex(2), directly and under the C library's locks.

#include <linux/futex.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"
#include "test/guest/events_support.h"

namespace {

using test::Child;
using Word = std::atomic<uint32_t>;

long Futex(Word* word, int operation, uint32_t value, const timespec* timeout = nullptr,
           Word* word2 = nullptr, uint32_t value3 = 0) {
  return syscall(SYS_futex, word, operation, value, timeout, word2, value3);
}
long FutexCounts(Word* word, int operation, uint32_t count, uint64_t count2, Word* word2,
                 uint32_t value3 = 0) {
  return syscall(SYS_futex, word, operation, count, count2, word2, value3);
}
uint32_t Tid() { return static_cast<uint32_t>(syscall(SYS_gettid)); }

// Threads that wait on a word; counts those that came back.
struct Waiters {
  Waiters(int count, Word& word, uint32_t value, uint32_t bitset = ~0U) {
    for (int i = 0; i < count; ++i) {
      threads.emplace_back([this, &word, value, bitset] {
        while (Futex(&word, FUTEX_WAIT_BITSET_PRIVATE, value, nullptr, nullptr, bitset) != 0 &&
               errno == EINTR) {
        }
        ++back;
      });
    }
    test::SleepMs(60);
  }
  ~Waiters() {
    for (std::thread& thread : threads) thread.join();
  }
  bool Reaches(int count) const {
    for (int i = 0; i < 200 && back < count; ++i) test::SleepMs(5);
    test::SleepMs(20);
    return back == count;
  }
  std::atomic<int> back{0};
  std::vector<std::thread> threads;
};

}  // namespace

TEST_CASE("a wait for another value returns at once", "[futex]") {
  Word word{1};
  CHECK(Futex(&word, FUTEX_WAIT_PRIVATE, 2) == -1);
  CHECK(errno == EAGAIN);
}

TEST_CASE("a relative time-out ends a wait", "[futex]") {
  Word word{0};
  const timespec timeout{0, 30'000'000};
  const int64_t before = test::NowMs();
  CHECK(Futex(&word, FUTEX_WAIT_PRIVATE, 0, &timeout) == -1);
  CHECK(errno == ETIMEDOUT);
  CHECK(test::NowMs() - before >= 29);
}

TEST_CASE("an absolute time-out on either clock ends a wait", "[futex]") {
  Word word{0};
  timespec until{};
  clock_gettime(CLOCK_MONOTONIC, &until);
  CHECK(Futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &until, nullptr, ~0U) == -1);
  CHECK(errno == ETIMEDOUT);
  clock_gettime(CLOCK_REALTIME, &until);
  CHECK(Futex(&word, FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME, 0, &until, nullptr, ~0U) ==
        -1);
  CHECK(errno == ETIMEDOUT);
}

TEST_CASE("futex refuses what makes no sense", "[futex]") {
  Word words[2] = {};
  CHECK(Futex(&words[0], FUTEX_WAIT_BITSET_PRIVATE, 0, nullptr, nullptr, 0) == -1);
  CHECK(errno == EINVAL);
  const timespec bad{0, 1'000'000'000};
  CHECK(Futex(&words[0], FUTEX_WAIT_PRIVATE, 0, &bad) == -1);
  CHECK(errno == EINVAL);
  Word* const crooked = reinterpret_cast<Word*>(reinterpret_cast<char*>(words) + 1);
  CHECK(Futex(crooked, FUTEX_WAKE_PRIVATE, 1) == -1);
  CHECK(errno == EINVAL);
  CHECK(Futex(&words[0], 99, 1) == -1);
  CHECK(errno == ENOSYS);
  CHECK(Futex(&words[0], FUTEX_WAKE_PRIVATE | FUTEX_CLOCK_REALTIME, 1) == -1);
  CHECK(errno == ENOSYS);
  CHECK(Futex(reinterpret_cast<Word*>(16), FUTEX_WAIT_PRIVATE, 0) == -1);
  CHECK(errno == EFAULT);
}

TEST_CASE("a wake-up counts whom it woke", "[futex]") {
  Word word{0};
  CHECK(Futex(&word, FUTEX_WAKE_PRIVATE, 1) == 0);
  Waiters waiters(3, word, 0);
  CHECK(Futex(&word, FUTEX_WAKE_PRIVATE, 1) == 1);
  CHECK(waiters.Reaches(1));
  CHECK(Futex(&word, FUTEX_WAKE_PRIVATE, INT_MAX) == 2);
  CHECK(waiters.Reaches(3));
}

TEST_CASE("bits select whom to wake", "[futex]") {
  Word word{0};
  Waiters ones(1, word, 0, 1);
  Waiters twos(1, word, 0, 2);
  CHECK(Futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, nullptr, nullptr, 4) == 0);
  CHECK(Futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, nullptr, nullptr, 2) == 1);
  CHECK(twos.Reaches(1));
  CHECK(ones.back == 0);
  CHECK(Futex(&word, FUTEX_WAKE_PRIVATE, 10) == 1);
}

TEST_CASE("requeueing moves waiters to another word", "[futex]") {
  Word from{0}, to{0};
  Waiters waiters(4, from, 0);
  CHECK(FutexCounts(&from, FUTEX_CMP_REQUEUE_PRIVATE, 1, 2, &to, 7) == -1);
  CHECK(errno == EAGAIN);
  CHECK(FutexCounts(&from, FUTEX_CMP_REQUEUE_PRIVATE, 1, 2, &to, 0) == 3);
  CHECK(waiters.Reaches(1));
  CHECK(Futex(&to, FUTEX_WAKE_PRIVATE, 10) == 2);
  CHECK(waiters.Reaches(3));
  CHECK(FutexCounts(&from, FUTEX_REQUEUE_PRIVATE, 0, 10, &to) == 1);
  CHECK(Futex(&from, FUTEX_WAKE_PRIVATE, 10) == 0);
  CHECK(Futex(&to, FUTEX_WAKE_PRIVATE, 10) == 1);
}

TEST_CASE("wake_op changes one word and wakes on both", "[futex]") {
  Word first{0}, second{5};
  Waiters on_first(1, first, 0);
  Waiters on_second(1, second, 5);
  const uint32_t add_3_if_5 = FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 5);
  CHECK(FutexCounts(&first, FUTEX_WAKE_OP_PRIVATE, 1, 1, &second, add_3_if_5) == 2);
  CHECK(second == 8);
  const uint32_t andn_if_less = FUTEX_OP(FUTEX_OP_ANDN, 8, FUTEX_OP_CMP_LT, 3);
  CHECK(FutexCounts(&first, FUTEX_WAKE_OP_PRIVATE, 1, 1, &second, andn_if_less) == 0);
  CHECK(second == 0);
  const uint32_t shifted = FUTEX_OP(FUTEX_OP_SET | FUTEX_OP_OPARG_SHIFT, 4, FUTEX_OP_CMP_GE, 0);
  CHECK(FutexCounts(&first, FUTEX_WAKE_OP_PRIVATE, 1, 1, &second, shifted) == 0);
  CHECK(second == 16);
  CHECK(FutexCounts(&first, FUTEX_WAKE_OP_PRIVATE, 1, 1, &second, 5U << 28) == -1);
  CHECK(errno == ENOSYS);
}

TEST_CASE("shared words join processes", "[futex]") {
  void* const page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(page != MAP_FAILED);
  Word* const word = new (page) Word(0);
  Child child([&] {
    while (word->load() == 0) Futex(word, FUTEX_WAIT, 0);
    return word->load() == 7 ? 0 : 1;
  });
  test::SleepMs(50);
  *word = 7;
  CHECK(Futex(word, FUTEX_WAKE, 1) == 1);
  CHECK(child.Wait() == 0);
  munmap(page, 4096);
}

TEST_CASE("a signal with a handler ends a wait with EINTR", "[futex]") {
  Word word{0};
  const test::CountSignals counter(SIGUSR1, SA_RESTART);
  const timespec timeout{5, 0};
  const test::SignalSoon soon(SIGUSR1, 40);
  CHECK(Futex(&word, FUTEX_WAIT_PRIVATE, 0, &timeout) == -1);
  CHECK(errno == EINTR);
  CHECK(test::g_signals == 1);
}

TEST_CASE("a stop and a continue do not end a wait, nor its time-out", "[futex]") {
  Child child([] {
    Word word{0};
    const timespec timeout{0, 300'000'000};
    const int64_t before = test::NowMs();
    const long result = Futex(&word, FUTEX_WAIT_PRIVATE, 0, &timeout);
    const int64_t took = test::NowMs() - before;
    return result == -1 && errno == ETIMEDOUT && took >= 299 && took < 2000 ? 0 : 1;
  });
  test::SleepMs(60);
  kill(child.pid(), SIGSTOP);
  test::SleepMs(40);
  kill(child.pid(), SIGCONT);
  CHECK(child.Wait() == 0);
}

TEST_CASE("waitv says which word was woken", "[futex]") {
  Word words[3] = {{1}, {2}, {3}};
  struct {
    uint64_t val, uaddr;
    uint32_t flags, reserved;
  } entries[3];
  for (size_t i = 0; i < 3; ++i)
    entries[i] = {i + 1, reinterpret_cast<uint64_t>(&words[i]), 2 | 128, 0};
  std::thread waker([&] {
    test::SleepMs(50);
    Futex(&words[1], FUTEX_WAKE_PRIVATE, 1);
  });
  CHECK(syscall(449, entries, 3, 0, nullptr, CLOCK_MONOTONIC) == 1);
  waker.join();
  words[2] = 0;
  CHECK(syscall(449, entries, 3, 0, nullptr, CLOCK_MONOTONIC) == -1);
  CHECK(errno == EAGAIN);
  CHECK(syscall(449, entries, 0, 0, nullptr, CLOCK_MONOTONIC) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(449, entries, 129, 0, nullptr, CLOCK_MONOTONIC) == -1);
  CHECK(errno == EINVAL);
  words[2] = 3;
  timespec until{};
  clock_gettime(CLOCK_MONOTONIC, &until);
  CHECK(syscall(449, entries, 3, 0, &until, CLOCK_MONOTONIC) == -1);
  CHECK(errno == ETIMEDOUT);
}

TEST_CASE("a PI lock takes and gives back its word", "[futex][pi]") {
  Word word{0};
  CHECK(Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0) == 0);
  CHECK(word == Tid());
  CHECK(Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0) == -1);
  CHECK(errno == EDEADLK);
  CHECK(Futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0) == 0);
  CHECK(word == 0);
  CHECK(Futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0) == -1);
  CHECK(errno == EPERM);
}

TEST_CASE("a PI lock held by nobody alive is refused", "[futex][pi]") {
  Child child([] { return 0; });
  const uint32_t gone = static_cast<uint32_t>(child.pid());
  child.Wait();
  Word word{gone};
  CHECK(Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0) == -1);
  CHECK(errno == ESRCH);
}

TEST_CASE("a PI lock is handed over to the one that waits", "[futex][pi]") {
  Word word{0};
  std::atomic<uint32_t> waiter_tid{0};
  REQUIRE(Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0) == 0);
  std::thread waiter([&] {
    waiter_tid = Tid();
    if (Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0) != 0) return;
    if ((word & FUTEX_TID_MASK) != Tid()) waiter_tid = 0;
    test::SleepMs(20);
    Futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0);
  });
  test::SleepMs(60);
  CHECK(word == (Tid() | FUTEX_WAITERS));
  CHECK(Futex(&word, FUTEX_WAKE_PRIVATE, 1) == -1);
  CHECK(errno == EINVAL);
  CHECK(Futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0) == 0);
  CHECK(Futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0) == -1);
  CHECK(errno == EAGAIN);
  waiter.join();
  CHECK(waiter_tid != 0);
  CHECK((word & FUTEX_TID_MASK) == 0);
}

TEST_CASE("a wait for a PI lock can time out", "[futex][pi]") {
  Word word{0};
  REQUIRE(Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0) == 0);
  int error = 0;
  std::thread waiter([&] {
    timespec until{};
    clock_gettime(CLOCK_REALTIME, &until);
    if (Futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, &until) != 0) error = errno;
  });
  waiter.join();
  CHECK(error == ETIMEDOUT);
  CHECK(Futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0) == 0);
}

TEST_CASE("two PI locks taken crosswise are a deadlock", "[futex][pi]") {
  Word a{0}, b{0};
  REQUIRE(Futex(&a, FUTEX_LOCK_PI_PRIVATE, 0) == 0);
  std::thread other([&] {
    Futex(&b, FUTEX_LOCK_PI_PRIVATE, 0);
    Futex(&a, FUTEX_LOCK_PI_PRIVATE, 0);
    Futex(&a, FUTEX_UNLOCK_PI_PRIVATE, 0);
    Futex(&b, FUTEX_UNLOCK_PI_PRIVATE, 0);
  });
  test::SleepMs(60);
  CHECK(Futex(&b, FUTEX_LOCK_PI_PRIVATE, 0) == -1);
  CHECK(errno == EDEADLK);
  Futex(&a, FUTEX_UNLOCK_PI_PRIVATE, 0);
  other.join();
}

TEST_CASE("condition waiters are requeued to a PI lock", "[futex][pi]") {
  Word condition{0}, lock{0};
  std::atomic<int> locked{0};
  REQUIRE(Futex(&lock, FUTEX_LOCK_PI_PRIVATE, 0) == 0);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      if (Futex(&condition, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, nullptr, &lock) != 0) return;
      if ((lock & FUTEX_TID_MASK) == Tid()) ++locked;
      Futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0);
    });
  }
  test::SleepMs(80);
  CHECK(FutexCounts(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 2, 10, &lock, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(FutexCounts(&condition, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, 10, &lock, 0) == 3);
  CHECK(locked == 0);
  CHECK(Futex(&lock, FUTEX_UNLOCK_PI_PRIVATE, 0) == 0);
  for (std::thread& thread : threads) thread.join();
  CHECK(locked == 3);
}

TEST_CASE("a robust mutex tells that its owner died", "[futex][robust]") {
  void* const page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  REQUIRE(page != MAP_FAILED);
  auto* const mutex = static_cast<pthread_mutex_t*>(page);
  const bool priority = GENERATE(false, true);
  CAPTURE(priority);
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  if (priority) pthread_mutexattr_setprotocol(&attributes, PTHREAD_PRIO_INHERIT);
  REQUIRE(pthread_mutex_init(mutex, &attributes) == 0);
  Child child([&] {
    pthread_mutex_lock(mutex);
    test::SleepMs(60);
    return 0;
  });
  test::SleepMs(30);
  CHECK(pthread_mutex_lock(mutex) == EOWNERDEAD);
  CHECK(pthread_mutex_consistent(mutex) == 0);
  CHECK(pthread_mutex_unlock(mutex) == 0);
  CHECK(pthread_mutex_lock(mutex) == 0);
  CHECK(pthread_mutex_unlock(mutex) == 0);
  CHECK(child.Wait() == 0);
  munmap(page, 4096);
}

TEST_CASE("robust lists are registered and told", "[futex][robust]") {
  void* head = nullptr;
  size_t bytes = 0;
  CHECK(syscall(SYS_get_robust_list, 0, &head, &bytes) == 0);
  CHECK(bytes == 24);
  CHECK(head != nullptr);
  CHECK(syscall(SYS_set_robust_list, head, 23) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_set_robust_list, head, 24) == 0);
  CHECK(syscall(SYS_get_robust_list, 0x3fffffff, &head, &bytes) == -1);
  CHECK(errno == ESRCH);
}

TEST_CASE("many threads exclude each other with a mutex and a condition", "[futex]") {
  pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
  int counter = 0;
  int done = 0;
  constexpr int kThreads = 8, kRounds = 2000;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        pthread_mutex_lock(&mutex);
        ++counter;
        pthread_mutex_unlock(&mutex);
      }
      pthread_mutex_lock(&mutex);
      ++done;
      pthread_cond_broadcast(&condition);
      while (done < kThreads) pthread_cond_wait(&condition, &mutex);
      pthread_mutex_unlock(&mutex);
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(counter == kThreads * kRounds);
}
