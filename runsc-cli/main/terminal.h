#pragma once

// The host terminal while a guest uses it: raw, so that every key, Ctrl-C and Ctrl-Z included, is
// the business of the line discipline inside; and put back whatever happens to runsc (short of
// SIGKILL).

#include <termios.h>

namespace runsc {

class Terminal {
 public:
  // Remembers the modes of `fd`, a terminal. One per process (the signal handler needs it).
  explicit Terminal(int fd);
  // Restores.
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  // Raw mode, if this process is in the terminal's foreground group: a background job must not
  // change its modes (it would be stopped by SIGTTOU). True if the terminal is ours and raw now.
  bool Acquire();
  void Restore();
  const termios& original() const { return original_; }

 private:
  int fd_;
  termios original_{};
  bool raw_ = false;
};

}  // namespace runsc
