#pragma once

// The host terminal while a guest uses it: raw, so that every key, Ctrl-C and Ctrl-Z included, is
// the business of the line discipline inside; and put back whatever happens to runsc. After a
// SIGKILL nobody of the sandbox can do it: sentry and gofer have left the terminal's session. So a
// fork of runsc, in a process group of its own, sleeps until the end of a pipe tells it.

#include <sys/types.h>
#include <termios.h>

#include "platform/base/fd.h"

namespace runsc {

class Terminal {
 public:
  // Remembers the modes of `fd`, a terminal. One per process (the signal handler needs it).
  explicit Terminal(int fd);
  // Restores, and ends the watcher.
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Raw mode, if this process is in the terminal's foreground group: a background job must not
  // change its modes (it would be stopped by SIGTTOU). True if the terminal is ours and raw now.
  bool Acquire();
  void Restore();
  const termios& original() const { return original_; }

 private:
  void StartWatcher();

  int fd_;
  termios original_{};
  pid_t watcher_ = -1;
  base::Fd watcher_pipe_;  // A byte: all is well. Its end without one: runsc was killed.
  bool raw_ = false;
};

}  // namespace runsc
