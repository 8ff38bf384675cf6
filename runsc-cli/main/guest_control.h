#pragma once

// The sentry's end of the line to runsc: signals and window sizes come in; when the line or the
// gofer's ends, the sandbox does.

#include <sys/types.h>

#include <functional>
#include <thread>

#include "platform/base/fd.h"
#include "runsc-cli/main/control_socket.h"

namespace runsc {

class GuestControl {
 public:
  using Handler = std::function<void(Frame&)>;

  // Starts a host thread. `on_frame` gets what runsc sends. A line that ends ends the process, with
  // a line in the log: nobody is left to report to. Both descriptors are borrowed and outlive the
  // process's guest.
  GuestControl(int control, int gofer, Handler on_frame);
  GuestControl(const GuestControl&) = delete;
  GuestControl& operator=(const GuestControl&) = delete;

  // From here on the ends of the lines are expected.
  void Finish();

 private:
  void Run();

  const int control_;
  const int gofer_;
  const Handler on_frame_;
  std::atomic<bool> finishing_{false};
};

}  // namespace runsc
