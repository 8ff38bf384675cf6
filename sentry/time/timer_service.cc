#include "sentry/time/timer_service.h"

// One thread, a sorted set of armed timers, and a futex word to sleep on. The thread sleeps until
// the earliest timer and is woken only when an earlier one is armed; cancelling wakes nobody. With
// no timer armed it sleeps for ever.

#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "platform/base/check.h"

namespace sentry {
namespace {

constexpr size_t kThreadStackBytes = size_t{256} << 10;

class Service;

class ServiceTimer : public Timer {
 public:
  ServiceTimer(Service& service, std::function<void()> callback)
      : service_(service), callback_(std::move(callback)) {}
  ~ServiceTimer() override { Cancel(); }
  void Arm(Deadline at) override;
  void Cancel() override;

 private:
  friend class Service;
  Service& service_;
  const std::function<void()> callback_;
  bool armed_ = false;  // Guarded by the service's mutex.
  int64_t at_ns_ = 0;   // Guarded by the service's mutex.
};

class Service : public TimerService {
 public:
  explicit Service(const Clock& clock) : clock_(clock) {
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, kThreadStackBytes) == 0);
    CHECK(pthread_create(&thread_, &attributes, &Service::ThreadMain, this) == 0);
    pthread_attr_destroy(&attributes);
  }
  ~Service() override {
    {
      const absl::MutexLock lock(&mu_);
      CHECK(armed_.empty());
      stop_ = true;
      WakeThread();
    }
    pthread_join(thread_, nullptr);
  }

  std::unique_ptr<Timer> NewTimer(std::function<void()> callback) override {
    return std::make_unique<ServiceTimer>(*this, std::move(callback));
  }

  void Arm(ServiceTimer& timer, Deadline at) ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    Disarm(timer);
    if (at.IsNever()) return;
    timer.armed_ = true;
    timer.at_ns_ = at.monotonic_ns;
    const auto [position, inserted] = armed_.emplace(at.monotonic_ns, &timer);
    if (position == armed_.begin()) WakeThread();
  }

  void Cancel(ServiceTimer& timer) ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    Disarm(timer);
    if (pthread_equal(pthread_self(), thread_) != 0) return;
    while (running_ == &timer) callback_done_.Wait(&mu_);
    // The callback may have armed it again meanwhile.
    Disarm(timer);
  }

 private:
  static void* ThreadMain(void* self) {
    static_cast<Service*>(self)->Run();
    return nullptr;
  }

  void Disarm(ServiceTimer& timer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!timer.armed_) return;
    timer.armed_ = false;
    armed_.erase({timer.at_ns_, &timer});
  }

  void WakeThread() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    wake_word_.fetch_add(1, std::memory_order_release);
    syscall(SYS_futex, &wake_word_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
  }

  // Sleeps unless the word has changed from `seen`. At most until `until_ns` on the host's
  // monotonic clock.
  void Sleep(uint32_t seen, int64_t until_ns) {
    timespec until{};
    until.tv_sec = until_ns / 1'000'000'000;
    until.tv_nsec = until_ns % 1'000'000'000;
    syscall(SYS_futex, &wake_word_, FUTEX_WAIT_BITSET_PRIVATE, seen,
            until_ns == INT64_MAX ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
  }

  void Run() ABSL_LOCKS_EXCLUDED(mu_) {
    mu_.Lock();
    while (!stop_) {
      const uint32_t seen = wake_word_.load(std::memory_order_acquire);
      if (armed_.empty() || armed_.begin()->first > clock_.MonotonicNs()) {
        const int64_t until_ns = armed_.empty() ? INT64_MAX : armed_.begin()->first;
        mu_.Unlock();
        Sleep(seen, until_ns);
        mu_.Lock();
        continue;
      }
      ServiceTimer& due = *armed_.begin()->second;
      Disarm(due);
      running_ = &due;
      mu_.Unlock();
      due.callback_();
      mu_.Lock();
      running_ = nullptr;
      callback_done_.SignalAll();
    }
    mu_.Unlock();
  }

  const Clock& clock_;
  pthread_t thread_{};
  std::atomic<uint32_t> wake_word_{0};
  absl::Mutex mu_;
  absl::CondVar callback_done_;
  std::set<std::pair<int64_t, ServiceTimer*>> armed_ ABSL_GUARDED_BY(mu_);
  // Whose callback runs now. It may be destroyed by that callback: compared, never followed.
  ServiceTimer* running_ ABSL_GUARDED_BY(mu_) = nullptr;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
};

void ServiceTimer::Arm(Deadline at) { service_.Arm(*this, at); }
void ServiceTimer::Cancel() { service_.Cancel(*this); }

}  // namespace

std::unique_ptr<TimerService> NewTimerService(const Clock& clock) {
  return std::make_unique<Service>(clock);
}

}  // namespace sentry
