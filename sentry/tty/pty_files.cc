#include "sentry/tty/pty_files.h"

#include <signal.h>

#include <algorithm>
#include <array>
#include <vector>

#include "sentry/kernel/job_control.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"

namespace sentry {
namespace {

// A read or write moves at most this much through the line discipline at a time.
constexpr size_t kChunkBytes = 4096;
constexpr int64_t kTenthNs = 100'000'000;
// An expiry that nobody collected for this long belongs to a read that was interrupted.
constexpr int64_t kStaleExpiryNs = 1'000'000'000;

// Hands the buffer to `take` piece by piece; what is not taken stays in the buffer, for when there
// is room.
template <typename Take>
base::Result<size_t> WriteInChunks(IoBuffer& from, Take&& take) {
  while (from.remaining() > 0) {
    std::array<uint8_t, kChunkBytes> bytes;
    const auto chunk = std::span(bytes).first(std::min<uint64_t>(from.remaining(), kChunkBytes));
    IoBuffer ahead = from;
    const auto copied = ahead.CopyIn(std::as_writable_bytes(chunk));
    if (!copied.ok()) {
      if (from.done() == 0) return copied.error();
      break;
    }
    const size_t taken = take(std::span<const uint8_t>(chunk.first(copied.value())));
    from.Skip(taken);
    if (taken < copied.value()) return base::Errno(EAGAIN);
  }
  return static_cast<size_t>(from.done());
}

}  // namespace

// --- Master.

PtyMasterFile::~PtyMasterFile() { terminal_->CloseMaster(); }

base::Result<size_t> PtyMasterFile::Read(Task&, IoBuffer& to, uint64_t*) {
  if (to.remaining() == 0) return size_t{0};
  std::vector<uint8_t> bytes(
      std::min<uint64_t>(to.remaining(), LineDiscipline::kOutputBytesMax + 1));
  size_t count = 0;
  Terminal::Events events;
  {
    const absl::MutexLock lock(&terminal_->mu_);
    std::span<uint8_t> room(bytes);
    if (terminal_->packet_mode_) {
      // One status byte in front of data, or alone.
      bytes[0] = std::exchange(terminal_->packet_status_, uint8_t{0});
      count = 1;
      if (bytes[0] == TIOCPKT_DATA) {
        const size_t taken = terminal_->line_.TakeOutput(room.subspan(1), events);
        count = taken > 0 || bytes.size() == 1 ? taken + 1 : 0;
        if (terminal_->line_.OutputQueued() == 0 && taken == 0) count = 0;
      }
    } else {
      count = terminal_->line_.TakeOutput(room, events);
    }
    if (count == 0) {
      const bool gone = terminal_->slave_was_opened_ && terminal_->slaves_ == 0;
      return base::Errno(gone ? EIO : EAGAIN);
    }
  }
  terminal_->Apply(events);
  return to.CopyOut(std::as_bytes(std::span(bytes).first(count)));
}

base::Result<size_t> PtyMasterFile::Write(Task&, IoBuffer& from, uint64_t*) {
  return WriteInChunks(
      from, [this](std::span<const uint8_t> bytes) { return terminal_->TypeBytes(bytes); });
}

base::Result<uint64_t> PtyMasterFile::Ioctl(Task& task, uint32_t command, uint64_t argument) {
  return terminal_->MasterIoctl(task, command, argument);
}

PollMask PtyMasterFile::Poll(PollMask interest) {
  return terminal_->PollMaster() & (interest | kPollAlways);
}

std::string PtyMasterFile::FdInfo() const {
  return "tty-index:\t" + std::to_string(terminal_->index()) + "\n";
}

// --- Slave.

PtySlaveFile::PtySlaveFile(Path path, uint32_t flags, CredentialsRef credentials,
                           std::shared_ptr<Terminal> terminal, uint64_t generation)
    : File(std::move(path), flags, std::move(credentials)),
      terminal_(std::move(terminal)),
      generation_(generation) {}

PtySlaveFile::~PtySlaveFile() {
  timer_.reset();
  terminal_->SlaveClosed();
}

// Noncanonical mode by VMIN and VTIME. The clock starts at once if VMIN is 0, else with the first
// byte, and anew with each one.
base::Result<size_t> PtySlaveFile::WaitForBytes(size_t available, size_t minimum, uint32_t tenths) {
  uint64_t arrivals = 0;
  {
    const absl::MutexLock lock(&terminal_->mu_);
    arrivals = terminal_->input_arrivals_;
  }
  const int64_t now = terminal_->kernel_.clock().MonotonicNs();
  const absl::MutexLock lock(&timed_mu_);
  if (timed_.expired && now - timed_.expired_at_ns > kStaleExpiryNs) timed_ = {};
  if (timed_.expired) {
    timed_ = {};
    return available;
  }
  const bool starts = minimum == 0
                          ? !timed_.waiting
                          : available > 0 && (!timed_.waiting || timed_.arrivals != arrivals);
  if (starts) {
    timed_ = {.waiting = true, .expired = false, .expired_at_ns = 0, .arrivals = arrivals};
    if (timer_ == nullptr) {
      timer_ = terminal_->kernel_.timers().NewTimer([this] {
        {
          const absl::MutexLock timed_lock(&timed_mu_);
          if (!timed_.waiting) return;
          timed_.expired = true;
          timed_.expired_at_ns = terminal_->kernel_.clock().MonotonicNs();
        }
        terminal_->slave_queue().Notify(kPollReadable);
      });
    }
    timer_->Arm(Deadline::At(now + kTenthNs * tenths));
  }
  return base::Errno(EAGAIN);
}

base::Result<size_t> PtySlaveFile::ReadableNow(Task&, uint64_t wanted) {
  size_t available = 0;
  size_t minimum = 0;
  uint32_t tenths = 0;
  {
    const absl::MutexLock lock(&terminal_->mu_);
    available = terminal_->line_.InputAvailable(false);
    const Termios2& settings = terminal_->line_.settings();
    if ((settings.c_lflag & ICANON) != 0) {
      if (available == 0) return base::Errno(EAGAIN);
      return available;
    }
    minimum = settings.c_cc[VMIN];
    tenths = settings.c_cc[VTIME];
  }
  if (available > 0 && (nonblocking() || available >= std::min<uint64_t>(minimum, wanted))) {
    const absl::MutexLock lock(&timed_mu_);
    timed_ = {};
    return available;
  }
  if (tenths == 0) {
    if (minimum == 0) return size_t{0};
    return base::Errno(EAGAIN);
  }
  if (nonblocking()) return base::Errno(EAGAIN);
  return WaitForBytes(available, minimum, tenths);
}

base::Result<size_t> PtySlaveFile::Read(Task& task, IoBuffer& to, uint64_t*) {
  if (terminal_->IsHungUp(generation_)) return size_t{0};
  TRY(JobControl::CheckAccess(task, *terminal_, SIGTTIN));
  if (to.remaining() == 0) return size_t{0};
  if (TRY(ReadableNow(task, to.remaining())) == 0) return size_t{0};
  std::vector<uint8_t> bytes(std::min<uint64_t>(to.remaining(), LineDiscipline::kInputBytesMax));
  size_t count = 0;
  Terminal::Events events;
  {
    const absl::MutexLock lock(&terminal_->mu_);
    // Another reader may have been faster.
    if (terminal_->line_.InputAvailable(false) == 0) return base::Errno(EAGAIN);
    count = terminal_->line_.Read(bytes, events);
    terminal_->NoteLocked(events);
  }
  terminal_->Apply(events);
  if (count == 0) return size_t{0};
  return to.CopyOut(std::as_bytes(std::span(bytes).first(count)));
}

base::Result<size_t> PtySlaveFile::Write(Task& task, IoBuffer& from, uint64_t*) {
  if (terminal_->IsHungUp(generation_)) return base::Errno(EIO);
  bool stop_background = false;
  {
    const absl::MutexLock lock(&terminal_->mu_);
    stop_background = (terminal_->line_.settings().c_lflag & TOSTOP) != 0;
  }
  if (stop_background) TRY(JobControl::CheckAccess(task, *terminal_, SIGTTOU));
  return WriteInChunks(from, [this](std::span<const uint8_t> bytes) {
    Terminal::Events events;
    size_t taken = 0;
    {
      const absl::MutexLock lock(&terminal_->mu_);
      taken = terminal_->line_.Write(bytes, events);
    }
    terminal_->Apply(events);
    return taken;
  });
}

base::Result<uint64_t> PtySlaveFile::Ioctl(Task& task, uint32_t command, uint64_t argument) {
  if (terminal_->IsHungUp(generation_)) {
    return base::Errno(command == TIOCSPGRP ? ENOTTY : EIO);
  }
  return terminal_->SlaveIoctl(task, command, argument, readable());
}

PollMask PtySlaveFile::Poll(PollMask interest) {
  if (terminal_->IsHungUp(generation_)) {
    return (kPollReadable | kPollWritable | POLLHUP | POLLERR) & (interest | kPollAlways);
  }
  const absl::MutexLock lock(&terminal_->mu_);
  PollMask mask = 0;
  if (terminal_->line_.InputAvailable(true) > 0) mask |= kPollReadable;
  if (terminal_->line_.CanWrite()) mask |= kPollWritable;
  return mask & (interest | kPollAlways);
}

}  // namespace sentry
