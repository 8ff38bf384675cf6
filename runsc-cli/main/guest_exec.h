#pragma once

// The processes of `runsc exec` in a sandbox: each has a thread that waits for its end and says so.

#include <cstdint>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "runsc-cli/main/control_socket.h"
#include "sentry/kernel/kernel.h"
#include "sentry/tty/termios.h"

namespace sentry {
class DevPts;
}  // namespace sentry

namespace runsc {

class GuestExecs {
 public:
  GuestExecs(sentry::Kernel& kernel, std::shared_ptr<sentry::DevPts> dev_pts, int control)
      : kernel_(kernel), dev_pts_(std::move(dev_pts)), control_(control) {}

  // Answers kExecStarted or kExecFailed, and later kExecExited.
  void Start(Frame frame) ABSL_LOCKS_EXCLUDED(mu_);
  void Signal(uint32_t request, int32_t signal) ABSL_LOCKS_EXCLUDED(mu_);
  void SetSize(uint32_t request, const sentry::WindowSize& size) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Exec;
  void Run(std::shared_ptr<Exec> exec, uint32_t request) ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<Exec> Find(uint32_t request) ABSL_LOCKS_EXCLUDED(mu_);
  void Fail(uint32_t request, int code, std::string_view message);

  sentry::Kernel& kernel_;
  const std::shared_ptr<sentry::DevPts> dev_pts_;
  const int control_;
  absl::Mutex mu_;
  absl::flat_hash_map<uint32_t, std::shared_ptr<Exec>> execs_ ABSL_GUARDED_BY(mu_);
};

}  // namespace runsc
