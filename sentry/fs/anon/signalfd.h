#pragma once

// signalfd(2): pending signals as records to read. It shows the signals of whoever reads or polls,
// not of who made it.

#include <memory>

#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/signal/signal_types.h"

namespace sentry {

class SignalFile : public AnonymousFile {
 public:
  static constexpr size_t kRecordBytes = 128;  // struct signalfd_siginfo

  SignalFile(Task& task, SignalSet mask, uint32_t flags);
  // SIGKILL and SIGSTOP are taken out.
  void set_mask(SignalSet mask);

  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;
  PollMask Poll(PollMask interest) override;
  // Of the calling task; of the maker where there is no caller.
  WaitQueue* wait_queue() override;
  std::string FdInfo() const override;

 private:
  std::atomic<SignalSet> mask_{0};
  const std::weak_ptr<Task> maker_;
  WaitQueue no_signals_;  // For a maker that has exited.
};

}  // namespace sentry
