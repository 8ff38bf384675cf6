#pragma once

// A guest process that was asked for from outside: the first one, or one of `runsc exec`. Its
// descriptors 0, 1 and 2 are the caller's, or a terminal of the sentry's that is connected to the
// caller's.

#include <array>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "platform/base/fd.h"
#include "runsc-cli/main/boot_config.h"
#include "sentry/kernel/kernel.h"
#include "sentry/tty/console_pump.h"

namespace sentry {
class DevPts;
}  // namespace sentry

namespace runsc {

using StdioFds = std::array<base::Fd, 3>;

class GuestProcess {
 public:
  // `config` outlives it. Empty descriptors stay closed in the guest.
  GuestProcess(sentry::Kernel& kernel, std::shared_ptr<sentry::DevPts> dev_pts,
               const ProcessConfig& config, StdioFds stdio);

  // Makes the terminal if there is to be one. Before Start.
  absl::Status OpenTerminal();
  // Null without one.
  const std::shared_ptr<sentry::Terminal>& terminal() const { return terminal_; }

  struct Failure {
    int code = 0;  // 0: none. Else as a shell's users know it: 125, 126, 127.
    std::string message;
  };
  // Whether there is such a program, before anything runs. Others may change that; so it is for an
  // early message only.
  Failure Look() const;
  Failure Start();
  int32_t pid() const { return pid_; }
  // Sleeps until its end. The exit status; 128+n after signal n. What it has written to its
  // terminal is out.
  int WaitForExit();
  // Any thread, at any time.
  void SetSize(const sentry::WindowSize& size) {
    if (console_ != nullptr) console_->SetSize(size);
  }

 private:
  absl::Status OpenStdio(sentry::FdTable& table);
  base::Result<sentry::FileRef> OpenConsole();
  absl::StatusOr<sentry::ProcessArguments> MakeArguments() const;
  base::Result<int32_t> CreateFiltered(const sentry::ProcessArguments& arguments);
  int LookAt(const std::string& path) const;
  Failure FailToExecute(base::Errno error) const;

  sentry::Kernel& kernel_;
  const std::shared_ptr<sentry::DevPts> dev_pts_;
  const ProcessConfig& config_;
  StdioFds stdio_;
  std::shared_ptr<sentry::Terminal> terminal_;
  std::unique_ptr<sentry::ConsolePump> console_;
  sentry::FileRef console_file_;
  int32_t pid_ = 0;
};

}  // namespace runsc
