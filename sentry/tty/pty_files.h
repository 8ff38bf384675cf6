#pragma once

// The open ends of a Terminal.

#include <cstdint>
#include <memory>

#include "sentry/tty/terminal.h"
#include "sentry/vfs/file.h"

namespace sentry {

class PtyMasterFile final : public File {
 public:
  PtyMasterFile(Path path, uint32_t flags, CredentialsRef credentials,
                std::shared_ptr<Terminal> terminal)
      : File(std::move(path), flags, std::move(credentials)), terminal_(std::move(terminal)) {}
  ~PtyMasterFile() override;

  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;
  base::Result<size_t> Write(Task& task, IoBuffer& from, uint64_t* offset) override;
  base::Result<uint64_t> Ioctl(Task& task, uint32_t command, uint64_t argument) override;
  PollMask Poll(PollMask interest) override;
  WaitQueue* wait_queue() override { return &terminal_->master_queue(); }
  bool SupportsAsync() const override { return true; }
  std::string FdInfo() const override;
  const std::shared_ptr<Terminal>& terminal() const { return terminal_; }

 private:
  const std::shared_ptr<Terminal> terminal_;
};

class PtySlaveFile final : public File {
 public:
  PtySlaveFile(Path path, uint32_t flags, CredentialsRef credentials,
               std::shared_ptr<Terminal> terminal, uint64_t generation);
  ~PtySlaveFile() override;

  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;
  base::Result<size_t> Write(Task& task, IoBuffer& from, uint64_t* offset) override;
  base::Result<uint64_t> Ioctl(Task& task, uint32_t command, uint64_t argument) override;
  PollMask Poll(PollMask interest) override;
  WaitQueue* wait_queue() override { return &terminal_->slave_queue(); }
  bool SupportsAsync() const override { return true; }
  const std::shared_ptr<Terminal>& terminal() const { return terminal_; }

 private:
  // A read by VMIN and VTIME that has begun to wait (termios(3), noncanonical mode).
  struct TimedRead {
    bool waiting = false;
    bool expired = false;
    int64_t expired_at_ns = 0;
    uint64_t arrivals = 0;  // Terminal::input_arrivals_ when the timer was set.
  };
  // What a read may take now: EAGAIN to wait on, 0 for none (end of time).
  base::Result<size_t> ReadableNow(Task& task, uint64_t wanted);
  base::Result<size_t> WaitForBytes(size_t available, size_t minimum, uint32_t tenths);

  const std::shared_ptr<Terminal> terminal_;
  const uint64_t generation_;
  absl::Mutex timed_mu_;
  TimedRead timed_ ABSL_GUARDED_BY(timed_mu_);
  std::unique_ptr<Timer> timer_;  // Last: its callback uses what is above.
};

}  // namespace sentry
