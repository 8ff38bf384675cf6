#include "runsc-cli/main/guest_exec.h"

#include <thread>
#include <utility>

#include "platform/base/log.h"
#include "platform/base/strings.h"
#include "runsc-cli/main/guest_process.h"
#include "runsc-cli/main/launch.h"

namespace runsc {
namespace {

// The supervisor reads its end at all times; when it is that far behind it does not work any more.
void Send(int control, FrameKind kind, int64_t value, std::string_view text, uint32_t request) {
  if (!SendFrame(control, kind, value, text, request).ok()) {
    LOG_WARNING("runsc does not take what became of an exec");
  }
}

}  // namespace

struct GuestExecs::Exec {
  ProcessConfig config;
  std::unique_ptr<GuestProcess> process;
};

void GuestExecs::Fail(uint32_t request, int code, std::string_view message) {
  Send(control_, FrameKind::kExecFailed, code, message, request);
}

void GuestExecs::Start(Frame frame) {
  const uint32_t request = frame.request;
  if (frame.fds.size() != 4) return Fail(request, kOwnFailure, "exec without its descriptors");
  absl::StatusOr<ProcessConfig> config = ReadProcessConfig(frame.fds[0].get());
  if (!config.ok()) return Fail(request, kOwnFailure, base::Std(config.status().message()));
  auto exec = std::make_shared<Exec>();
  exec->config = *std::move(config);
  StdioFds stdio;
  for (size_t i = 0; i < stdio.size(); ++i) {
    if ((exec->config.stdio_open >> i & 1) != 0) stdio[i] = std::move(frame.fds[i + 1]);
  }
  exec->process = std::make_unique<GuestProcess>(kernel_, dev_pts_, exec->config, std::move(stdio));
  {
    const absl::MutexLock lock(&mu_);
    execs_[request] = exec;
  }
  // Loading a program reads files, which may take a while: the control thread goes on.
  std::thread([this, exec, request] { Run(exec, request); }).detach();
}

void GuestExecs::Run(std::shared_ptr<Exec> exec, uint32_t request) {
  GuestProcess& process = *exec->process;
  absl::Status terminal;
  if (exec->config.terminal) terminal = process.OpenTerminal();
  GuestProcess::Failure failure;
  if (!terminal.ok()) {
    failure = {kOwnFailure, std::string(terminal.message())};
  } else {
    failure = process.Start();
  }
  if (failure.code != 0) {
    Fail(request, failure.code, failure.message);
  } else {
    Send(control_, FrameKind::kExecStarted, process.pid(), {}, request);
    const int status = process.WaitForExit();
    Send(control_, FrameKind::kExecExited, status, {}, request);
  }
  const absl::MutexLock lock(&mu_);
  execs_.erase(request);
}

std::shared_ptr<GuestExecs::Exec> GuestExecs::Find(uint32_t request) {
  const absl::MutexLock lock(&mu_);
  const auto found = execs_.find(request);
  return found == execs_.end() ? nullptr : found->second;
}

void GuestExecs::Signal(uint32_t request, int32_t signal) {
  const std::shared_ptr<Exec> exec = Find(request);
  // ESRCH: it has ended meanwhile.
  if (exec != nullptr && exec->process->pid() != 0) {
    (void)kernel_.SignalProcess(exec->process->pid(), signal).ok();
  }
}

void GuestExecs::SetSize(uint32_t request, const sentry::WindowSize& size) {
  const std::shared_ptr<Exec> exec = Find(request);
  if (exec != nullptr) exec->process->SetSize(size);
}

}  // namespace runsc
