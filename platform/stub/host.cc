#include "platform/stub/host.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "absl/status/status.h"
#include "platform/base/log.h"
#include "platform/stub/image.h"

namespace platform {
namespace {

using base::Errno;
using base::Result;

// Address range for command pages and contexts: 4 KiB and 16 KiB each.
constexpr uint64_t kControlBytesMax = uint64_t{1} << 36;
constexpr size_t kReadyProcesses = 3;
// More processes that die at the same time are waited for.
constexpr size_t kRetiredMax = 32;
constexpr uint64_t kKickId = ~uint64_t{0};  // Other events carry a pidfd.

}  // namespace

absl::StatusOr<std::unique_ptr<StubHost>> StubHost::Create(const StubOptions& options) {
  Result<std::unique_ptr<MemoryPool>> control = MemoryPool::Create(kControlBytesMax);
  if (!control.ok()) {
    return absl::ErrnoToStatus(control.error().value(), "platform: memory shared with stubs");
  }
  absl::StatusOr<StubImage> image = MakeStubImage();
  if (!image.ok()) return image.status();
  absl::StatusOr<std::unique_ptr<Spawner>> spawner = Spawner::Create(*control.value(), *image);
  if (!spawner.ok()) return spawner.status();
  base::Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  base::Fd kick(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll || !kick) return absl::ErrnoToStatus(errno, "platform: epoll and eventfd");
  epoll_event event{.events = EPOLLIN, .data = {.u64 = kKickId}};
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, kick.get(), &event) != 0) {
    return absl::ErrnoToStatus(errno, "platform: epoll_ctl");
  }
  std::unique_ptr<StubHost> host(new StubHost(options, std::move(control).value(),
                                              *std::move(image), *std::move(spawner),
                                              std::move(epoll), std::move(kick)));
  host->service_ = std::thread([&host = *host] { host.Serve(); });
  return host;
}

StubHost::StubHost(const StubOptions& options, std::unique_ptr<MemoryPool> control, StubImage image,
                   std::unique_ptr<Spawner> spawner, base::Fd epoll, base::Fd kick)
    : options_(options),
      control_(std::move(control)),
      image_(std::move(image)),
      spawner_(std::move(spawner)),
      epoll_(std::move(epoll)),
      kick_(std::move(kick)) {}

StubHost::~StubHost() {
  if (service_.joinable()) AwaitRetired();
  if (service_.joinable()) {
    {
      absl::MutexLock lock(&mu_);
      stopping_ = true;
    }
    Kick();
    service_.join();
  }
  std::vector<std::shared_ptr<StubProcess>> ready;
  {
    absl::MutexLock lock(&mu_);
    ready.swap(ready_);
  }
  for (const auto& process : ready) process->Kill();
}

void StubHost::Kick() {
  const uint64_t one = 1;
  // Fails only when the counter is full, and then the service thread is awake already.
  (void)!write(kick_.get(), &one, sizeof(one));
}

Result<std::shared_ptr<StubProcess>> StubHost::Spawn() {
  std::shared_ptr<StubProcess> process =
      TRY(StubProcess::Create(*control_, *spawner_, cpus_, options_));
  {
    absl::MutexLock lock(&mu_);
    watched_[process->pidfd()] = process;
  }
  epoll_event event{.events = EPOLLIN, .data = {.u64 = static_cast<uint64_t>(process->pidfd())}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, process->pidfd(), &event) != 0) {
    const Errno error = base::LastErrno();
    EndProcess(*process);
    return error;
  }
  // Only what is watched may be waited for, so the first thread comes last.
  const Result<void> started = process->AwaitFirstThread();
  if (!started.ok()) {
    EndProcess(*process);
    return started.error();
  }
  return process;
}

Result<std::shared_ptr<StubProcess>> StubHost::NewProcess() {
  std::shared_ptr<StubProcess> process;
  {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&first_tried_));
    while (process == nullptr && !ready_.empty()) {
      if (!ready_.back()->dead()) process = ready_.back();
      ready_.pop_back();
    }
    // Whoever makes a second process will make more. Many sandboxes run a single one.
    ready_wanted_ = std::exchange(first_taken_, true) ? kReadyProcesses : 0;
  }
  Kick();
  if (process == nullptr) process = TRY(Spawn());
  return process;
}

void StubHost::EndProcess(StubProcess& process) {
  bool retired = false;
  {
    absl::MutexLock lock(&mu_);
    retired = retired_.contains(process.pidfd());
    if (!retired) watched_.erase(process.pidfd());
  }
  // Of a retired one the service thread must hear.
  if (!retired) epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, process.pidfd(), nullptr);
  if (!process.dead()) process.Kill();
}

void StubHost::Retire(const std::shared_ptr<StubProcess>& process, std::function<void()> gone) {
  bool watched = false;
  {
    absl::MutexLock lock(&mu_);
    watched = watched_.contains(process->pidfd()) && leaving_ < kRetiredMax;
    if (watched) {
      retired_.emplace(process->pidfd(), Retired{process, std::move(gone)});
      leaving_++;
    }
  }
  if (watched) {
    process->SendKill();
    return;
  }
  EndProcess(*process);
  gone();
}

void StubHost::AwaitRetired() {
  absl::MutexLock lock(&mu_);
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return leaving_ == 0; };
  mu_.Await(absl::Condition(&none));
}

bool StubHost::Refill() {
  {
    absl::MutexLock lock(&mu_);
    if (stopping_ || ready_.size() >= ready_wanted_) return false;
  }
  Result<std::shared_ptr<StubProcess>> process = Spawn();
  absl::MutexLock lock(&mu_);
  first_tried_ = true;
  // At the host's limits: whoever needs a process tries for itself and gets the error.
  if (!process.ok()) return false;
  ready_.push_back(std::move(process).value());
  return ready_.size() < ready_wanted_;
}

void StubHost::Serve() {
  std::array<epoll_event, 16> events;
  for (;;) {
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) return;
    }
    // Deaths in between: somebody may wait for the memory.
    const int timeout = Refill() ? 0 : -1;
    const int count =
        epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
    for (int i = 0; i < count; i++) {
      const uint64_t id = events[static_cast<size_t>(i)].data.u64;
      if (id == kKickId) {
        uint64_t value = 0;
        (void)!read(kick_.get(), &value, sizeof(value));
      } else {
        NoteDeath(static_cast<int>(id));
      }
    }
  }
}

void StubHost::NoteDeath(int pidfd) {
  std::shared_ptr<StubProcess> process;
  Retired retired;
  {
    absl::MutexLock lock(&mu_);
    auto it = watched_.find(pidfd);
    if (it == watched_.end()) return;
    process = it->second.lock();
    if (process != nullptr && !process->HasEnded()) return;  // The number was reused meanwhile.
    watched_.erase(it);
    if (auto found = retired_.find(pidfd); found != retired_.end()) {
      retired = std::move(found->second);
      retired_.erase(found);
    }
  }
  if (process == nullptr) return;
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, pidfd, nullptr);
  process->MarkDead();
  if (retired.gone == nullptr) return;
  retired.gone();
  retired = {};
  absl::MutexLock lock(&mu_);
  leaving_--;
}

}  // namespace platform
