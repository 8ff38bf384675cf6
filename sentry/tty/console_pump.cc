#include "sentry/tty/console_pump.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

namespace sentry {
namespace {

constexpr size_t kReadBytes = 4096;
// What a terminal or pipe that polls writable takes without sleeping.
constexpr size_t kWriteBytes = 256;
constexpr size_t kTakeBytes = 8192;
constexpr int kStuckMs = 5000;

}  // namespace

class ConsolePump::Waker final : public Waiter {
 public:
  explicit Waker(ConsolePump& pump) : pump_(pump) {}
  bool OnEvent(PollMask) override {
    pump_.Wake();
    return true;
  }

 private:
  ConsolePump& pump_;
};

base::Result<std::unique_ptr<ConsolePump>> ConsolePump::Start(std::shared_ptr<Terminal> terminal,
                                                              base::Fd host_input,
                                                              base::Fd host_output) {
  base::Fd wake_event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_event.valid()) return base::LastErrno();
  std::unique_ptr<ConsolePump> pump(new ConsolePump(std::move(terminal), std::move(host_input),
                                                    std::move(host_output), std::move(wake_event)));
  pump->thread_ = std::thread([raw = pump.get()] { raw->Run(); });
  return pump;
}

ConsolePump::ConsolePump(std::shared_ptr<Terminal> terminal, base::Fd host_input,
                         base::Fd host_output, base::Fd wake_event)
    : terminal_(std::move(terminal)),
      host_input_(std::move(host_input)),
      host_output_(std::move(host_output)),
      wake_event_(std::move(wake_event)),
      waker_(std::make_unique<Waker>(*this)),
      input_is_terminal_(host_input_.valid() && isatty(host_input_.get()) != 0),
      input_ended_(!host_input_.valid()) {
  terminal_->Unlock();
  terminal_->master_queue().Add(*waker_, kPollReadable | kPollWritable);
}

ConsolePump::~ConsolePump() {
  Finish();
  terminal_->master_queue().Remove(*waker_);
}

void ConsolePump::Finish() {
  {
    const absl::MutexLock lock(&mu_);
    finishing_ = true;
  }
  Wake();
  if (thread_.joinable()) thread_.join();
}

bool ConsolePump::finishing() {
  const absl::MutexLock lock(&mu_);
  return finishing_;
}

void ConsolePump::Wake() {
  // A full counter (EAGAIN) is awake already.
  (void)!eventfd_write(wake_event_.get(), 1);
}

void ConsolePump::TypePending() {
  if (typed_.empty()) return;
  const size_t taken = terminal_->TypeBytes(typed_);
  typed_.erase(typed_.begin(), typed_.begin() + static_cast<ptrdiff_t>(taken));
}

void ConsolePump::ReadHost() {
  std::array<uint8_t, kReadBytes> bytes;
  const ssize_t count = read(host_input_.get(), bytes.data(), bytes.size());
  if (count > 0) {
    typed_.assign(bytes.begin(), bytes.begin() + count);
    return;
  }
  if (count < 0 && (errno == EINTR || errno == EAGAIN)) return;
  input_ended_ = true;
  // The user's terminal has gone. (The end of a file or pipe only means that nobody types any
  // more.)
  if (input_is_terminal_ || (count < 0 && errno == EIO)) terminal_->CloseMaster();
}

void ConsolePump::WriteHost() {
  const size_t size = std::min(written_.size(), kWriteBytes);
  const ssize_t count = write(host_output_.get(), written_.data(), size);
  if (count < 0) {
    if (errno == EINTR || errno == EAGAIN) return;
    // Nobody reads: the guest's output goes nowhere from now on, but must not pile up.
    output_broken_ = true;
    written_.clear();
    return;
  }
  written_.erase(written_.begin(), written_.begin() + count);
}

void ConsolePump::Run() {
  while (true) {
    TypePending();
    if (written_.empty()) {
      written_.resize(kTakeBytes);
      size_t count = terminal_->TakeOutput(written_);
      while (output_broken_ && count > 0) count = terminal_->TakeOutput(written_);
      written_.resize(count);
    }
    const bool ending = finishing();
    if (ending && written_.empty()) return;

    pollfd polled[3] = {{wake_event_.get(), POLLIN, 0}, {-1, POLLIN, 0}, {-1, POLLOUT, 0}};
    if (!input_ended_ && typed_.empty() && !ending) polled[1].fd = host_input_.get();
    if (!written_.empty()) polled[2].fd = host_output_.get();
    const int ready = poll(polled, 3, ending ? kStuckMs : -1);
    if (ready < 0 && errno != EINTR) return;
    if (ready == 0 && ending) return;
    if ((polled[0].revents & POLLIN) != 0) {
      eventfd_t count = 0;
      (void)!eventfd_read(wake_event_.get(), &count);
    }
    if (polled[1].revents != 0) ReadHost();
    if (polled[2].revents != 0) WriteHost();
  }
}

}  // namespace sentry
