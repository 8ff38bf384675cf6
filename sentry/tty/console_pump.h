#pragma once

// A container's console. The guest gets a pseudo-terminal like any other; its master end is the
// sentry, which copies bytes between it and two descriptors of the host: the user's terminal, set
// to raw mode by the launcher, so that line editing, echo and ^C all happen in the guest's
// terminal.
//
// One host thread, asleep in poll unless there is something to copy. The host's descriptors are
// shared with other processes, so they stay blocking: each read and write is preceded by poll and
// bounded.

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/tty/terminal.h"

namespace sentry {

class ConsolePump {
 public:
  // Starts copying; unlocks the terminal's slave. `host_input` may be empty (a console that nobody
  // types on). EMFILE, ENOMEM.
  static base::Result<std::unique_ptr<ConsolePump>> Start(std::shared_ptr<Terminal> terminal,
                                                          base::Fd host_input,
                                                          base::Fd host_output);
  ConsolePump(const ConsolePump&) = delete;
  ConsolePump& operator=(const ConsolePump&) = delete;
  // Finish().
  ~ConsolePump();

  const std::shared_ptr<Terminal>& terminal() const { return terminal_; }
  // SIGWINCH of the host, passed on.
  void SetSize(const WindowSize& size) { terminal_->SetSize(size); }
  // Writes what the guests have written, then stops copying. Gives up on a host terminal that takes
  // nothing for five seconds.
  void Finish() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  class Waker;
  ConsolePump(std::shared_ptr<Terminal> terminal, base::Fd host_input, base::Fd host_output,
              base::Fd wake_event);
  void Run();
  void TypePending();
  void ReadHost();
  void WriteHost();
  void Wake();
  bool finishing() ABSL_LOCKS_EXCLUDED(mu_);

  const std::shared_ptr<Terminal> terminal_;
  const base::Fd host_input_;
  const base::Fd host_output_;
  const base::Fd wake_event_;
  std::unique_ptr<Waker> waker_;

  // --- The thread's own.
  std::vector<uint8_t> typed_;    // Read from the host, not yet taken by the terminal.
  std::vector<uint8_t> written_;  // Taken from the terminal, not yet by the host.
  const bool input_is_terminal_;
  bool input_ended_ = false;
  bool output_broken_ = false;

  absl::Mutex mu_;
  bool finishing_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace sentry
