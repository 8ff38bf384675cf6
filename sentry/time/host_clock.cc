#include "sentry/time/host_clock.h"

#include <sys/random.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

#include "platform/base/check.h"

namespace sentry {
namespace {

int64_t ReadClock(clockid_t clock) {
  timespec now{};
  CHECK(clock_gettime(clock, &now) == 0);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void FillFromHost(std::span<std::byte> out) {
  while (!out.empty()) {
    const ssize_t count = getrandom(out.data(), out.size(), 0);
    if (count < 0) {
      CHECK(errno == EINTR);
      continue;
    }
    out = out.subspan(static_cast<size_t>(count));
  }
}

}  // namespace

int64_t HostClock::MonotonicNs() const { return ReadClock(CLOCK_MONOTONIC); }
int64_t HostClock::RealtimeNs() const { return ReadClock(CLOCK_REALTIME); }

void HostRandom::Fill(void* data, uint64_t size) {
  std::span<std::byte> out(static_cast<std::byte*>(data), size);
  const absl::MutexLock lock(&mu_);
  if (out.size() > block_.size() / 4) return FillFromHost(out);
  if (block_.size() - used_ < out.size()) {
    FillFromHost(block_);
    used_ = 0;
  }
  std::byte* const from = block_.data() + used_;
  std::memcpy(out.data(), from, out.size());
  explicit_bzero(from, out.size());
  used_ += out.size();
}

}  // namespace sentry
