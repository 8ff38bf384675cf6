#include "sentry/kernel/host_poller.h"

// One thread in epoll_wait over all host descriptors that guests wait for. Edge triggered: one
// event per change, passed on to the queue; whoever wakes asks the descriptor itself with Ready().

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/check.h"
#include "platform/base/fd.h"

namespace sentry {
namespace {

constexpr size_t kThreadStackBytes = size_t{256} << 10;
constexpr int kEventsPerWait = 64;

class EpollPoller : public HostPoller {
 public:
  EpollPoller(base::Fd epoll, base::Fd stop) : epoll_(std::move(epoll)), stop_(std::move(stop)) {}
  ~EpollPoller() override {
    if (!started_) return;
    const uint64_t one = 1;
    CHECK(write(stop_.get(), &one, sizeof(one)) == sizeof(one));
    pthread_join(thread_, nullptr);
  }

  base::Result<void> Start() {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = stop_.get();
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, stop_.get(), &event) != 0) return base::LastErrno();
    pthread_attr_t attributes;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstacksize(&attributes, kThreadStackBytes) == 0);
    const int error = pthread_create(&thread_, &attributes, &EpollPoller::ThreadMain, this);
    pthread_attr_destroy(&attributes);
    if (error != 0) return base::Errno(error);
    started_ = true;
    return {};
  }

  base::Result<void> Add(int host_fd, WaitQueue& queue) override ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;
    event.data.fd = host_fd;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, host_fd, &event) != 0) return base::LastErrno();
    queues_[host_fd] = &queue;
    return {};
  }

  void Remove(int host_fd) override ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    if (queues_.erase(host_fd) == 0) return;
    CHECK(epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, host_fd, nullptr) == 0);
  }

 private:
  static void* ThreadMain(void* self) {
    static_cast<EpollPoller*>(self)->Run();
    return nullptr;
  }

  void Run() ABSL_LOCKS_EXCLUDED(mu_) {
    std::array<epoll_event, kEventsPerWait> events;
    while (true) {
      const int count = epoll_wait(epoll_.get(), events.data(), kEventsPerWait, -1);
      if (count < 0) {
        CHECK(errno == EINTR);
        continue;
      }
      // Held while notifying, so that after Remove no event reaches the queue. An event of a
      // descriptor that was removed and whose number came back is a spurious wake-up, no more.
      const absl::MutexLock lock(&mu_);
      for (int i = 0; i < count; ++i) {
        const epoll_event& event = events[static_cast<size_t>(i)];
        if (event.data.fd == stop_.get()) return;
        const auto found = queues_.find(event.data.fd);
        // EPOLL* and POLL* are the same bits. Both spellings of "readable" and "writable" count.
        PollMask mask = event.events;
        if ((mask & POLLIN) != 0) mask |= kPollReadable;
        if ((mask & POLLOUT) != 0) mask |= kPollWritable;
        if (found != queues_.end()) found->second->Notify(mask);
      }
    }
  }

  const base::Fd epoll_;
  const base::Fd stop_;
  pthread_t thread_{};
  bool started_ = false;
  absl::Mutex mu_;
  absl::flat_hash_map<int, WaitQueue*> queues_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

PollMask HostPoller::Ready(int host_fd, PollMask interest) {
  pollfd request{};
  request.fd = host_fd;
  request.events = static_cast<int16_t>(interest);
  while (poll(&request, 1, 0) < 0) {
    CHECK(errno == EINTR);
  }
  return static_cast<uint16_t>(request.revents);
}

base::Result<std::unique_ptr<HostPoller>> NewHostPoller() {
  base::Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return base::LastErrno();
  base::Fd stop(eventfd(0, EFD_CLOEXEC));
  if (!stop) return base::LastErrno();
  auto poller = std::make_unique<EpollPoller>(std::move(epoll), std::move(stop));
  TRY(poller->Start());
  return std::unique_ptr<HostPoller>(std::move(poller));
}

}  // namespace sentry
