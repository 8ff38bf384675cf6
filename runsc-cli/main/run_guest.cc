#include "runsc-cli/main/run_guest.h"

#include <errno.h>
#include <sched.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gofer/protocol/client.h"
#include "platform/base/log.h"
#include "platform/base/strings.h"
#include "platform/memory/memory_pool.h"
#include "platform/platform_factory.h"
#include "platform/stub/cpu_pair.h"
#include "runsc-cli/main/control_socket.h"
#include "runsc-cli/main/guest_control.h"
#include "runsc-cli/main/guest_exec.h"
#include "runsc-cli/main/guest_mounts.h"
#include "runsc-cli/main/guest_network.h"
#include "runsc-cli/main/guest_process.h"
#include "runsc-cli/main/launch.h"
#include "sentry/fs/devpts/devpts.h"
#include "sentry/kernel/kernel.h"
#include "sentry/loader/vdso.h"
#include "sentry/mm/rewrite_stats.h"
#include "sentry/time/host_clock.h"
#include "syscalls/dispatch.h"

namespace runsc {
namespace {

using base::Result;

uint32_t CountCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return static_cast<uint32_t>(CPU_COUNT(&set));
}

uint64_t HostMemoryBytes() {
  struct sysinfo info{};
  if (sysinfo(&info) != 0) return uint64_t{1} << 30;
  return uint64_t{info.totalram} * info.mem_unit;
}

sentry::KernelOptions MakeKernelOptions(const BootConfig& config) {
  sentry::KernelOptions options;
  options.host_name = config.host_name;
  if (!config.domain_name.empty()) options.domain_name = config.domain_name;
  options.cpu_count = CountCpus();
  if (config.cpu_count != 0) options.cpu_count = std::min(options.cpu_count, config.cpu_count);
  options.memory_bytes = HostMemoryBytes();
  if (config.memory_bytes != 0)
    options.memory_bytes = std::min(options.memory_bytes, config.memory_bytes);
  if (config.tasks_max != 0) options.tasks_max = config.tasks_max;
  options.strace = config.strace;
  options.init_is_killable = !config.container;
  return options;
}

class SandboxGuest : public Guest {
 public:
  SandboxGuest(BootConfig config, GuestFds fds, const Timing& timing)
      : config_(std::move(config)),
        fds_(std::move(fds)),
        timing_(timing),
        dispatcher_(config_.strace) {}

  // The parts in order; each may use those before it.
  absl::Status Start() {
    auto pool = platform::MemoryPool::Create();
    if (!pool.ok()) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "cannot create the sandbox's memory (memfd): ", strerror(pool.error().value()),
          "; raise the limits on memory and open files (ulimit -v, -n)"));
    }
    pool_ = std::move(pool).value();
    timing_.Note("has its memory pool");
    auto kind = platform::ParsePlatformKind(config_.platform);
    if (!kind.ok()) return kind.status();
    auto platform = platform::CreatePlatform(*kind, *pool_, {.rewrite = config_.rewrite});
    if (!platform.ok()) return platform.status();
    platform_ = *std::move(platform);
    timing_.Note("has its platform");
    auto files = gofer::Client::Create(std::move(fds_.gofer_memory), std::move(fds_.gofer_socket));
    if (!files.ok()) return files.status();
    files_ = *std::move(files);
    files_->set_stay_on_cpu(&platform::StayOnCpu);
    auto vdso = sentry::Vdso::Create(*pool_, clock_);
    if (!vdso.ok()) return absl::ResourceExhaustedError("no memory for the guest's vDSO");
    vdso_ = std::move(vdso).value();
    kernel_ = std::make_unique<sentry::Kernel>(*platform_, *pool_, dispatcher_, *vdso_, random_,
                                               MakeKernelOptions(config_));
    kernel_->set_vdso(vdso_);
    timing_.Note("has its kernel");
    if (config_.network.own_stack) {
      const absl::Status network = StartNetwork(*kernel_, config_.network, std::move(fds_.links));
      if (!network.ok()) return network;
    }
    devices_.dev_pts = sentry::DevPts::Make(*kernel_);
    init_ =
        std::make_unique<GuestProcess>(*kernel_, devices_.dev_pts, config_, std::move(fds_.stdio));
    if (config_.terminal) {
      if (absl::Status status = init_->OpenTerminal(); !status.ok()) return status;
      devices_.console = init_->terminal();
    }
    absl::Status mounted = MountGuestTree(*kernel_, files_, config_, devices_);
    timing_.Note("has its tree");
    return mounted;
  }

  std::string_view platform_name() const override { return platform_->name(); }

  int Run() override {
    execs_ = std::make_unique<GuestExecs>(*kernel_, devices_.dev_pts, fds_.control.get());
    control_ = std::make_unique<GuestControl>(fds_.control.get(), files_->peer_fd(),
                                              [this](Frame& frame) { OnFrame(frame); });
    if (config_.container) {
      const GuestProcess::Failure missing = init_->Look();
      if (missing.code != 0) return Fail(missing);
      Send(FrameKind::kReady, 0);
      start_.WaitForNotification();
    }
    const GuestProcess::Failure failure = init_->Start();
    if (failure.code != 0) return Fail(failure);
    init_pid_.store(init_->pid());
    timing_.Note("starts the guest");
    Send(FrameKind::kStarted, 0);
    const int status = init_->WaitForExit();
    timing_.Note("sees the end of the guest");
    // What else runs in there goes with this process, which is what the end of a first process
    // means anyway; what it has written is written.
    LOG_INFO("%s", sentry::Describe(kernel_->rewrite_stats()).c_str());
    control_->Finish();
    Send(FrameKind::kExited, status);
    return status;
  }

 private:
  int Fail(const GuestProcess::Failure& failure) {
    control_->Finish();
    LOG_ERROR("%s", failure.message.c_str());
    Send(FrameKind::kFailed, failure.code, failure.message);
    return failure.code;
  }

  // runsc reads its end at all times; if it does not any more, its end ends the sandbox.
  void Send(FrameKind kind, int64_t value, std::string_view text = {}, uint32_t request = 0) {
    (void)SendFrame(fds_.control.get(), kind, value, text, request).ok();
  }
  void Reply(const Frame& frame, const Result<void>& result) {
    Send(FrameKind::kReply, result.ok() ? 0 : result.error().value(), {}, frame.request);
  }

  // On the control thread.
  void OnFrame(Frame& frame) {
    const auto signal = static_cast<int32_t>(frame.value);
    switch (frame.kind) {
      case FrameKind::kWindowSize:
        OnWindowSize(frame);
        break;
      case FrameKind::kSignal:
        // A signal that init ignores or does not handle is lost, as kill(2) of a container's init
        // is.
        if (init_pid_.load() != 0) (void)kernel_->SignalForeground(init_pid_.load(), signal).ok();
        break;
      case FrameKind::kStartGuest:
        if (!start_.HasBeenNotified()) start_.Notify();
        break;
      case FrameKind::kSignalInit:
        Reply(frame, kernel_->SignalProcess(init_pid_.load(), signal));
        break;
      case FrameKind::kSignalAll:
        Reply(frame, kernel_->SignalAll(signal));
        break;
      case FrameKind::kExec:
        execs_->Start(std::move(frame));
        break;
      case FrameKind::kExecSignal:
        execs_->Signal(frame.request, signal);
        break;
      case FrameKind::kPause:
        kernel_->Pause();
        Reply(frame, {});
        break;
      case FrameKind::kResume:
        kernel_->Resume();
        Reply(frame, {});
        break;
      default:
        break;
    }
  }

  void OnWindowSize(const Frame& frame) {
    const auto packed = static_cast<uint64_t>(frame.value);
    const sentry::WindowSize size{
        static_cast<uint16_t>(packed), static_cast<uint16_t>(packed >> 16),
        static_cast<uint16_t>(packed >> 32), static_cast<uint16_t>(packed >> 48)};
    if (frame.request == 0) {
      init_->SetSize(size);
    } else {
      execs_->SetSize(frame.request, size);
    }
  }

  const BootConfig config_;
  GuestFds fds_;
  const Timing timing_;
  syscalls::TableDispatcher dispatcher_;
  sentry::HostClock clock_;
  sentry::HostRandom random_;
  std::unique_ptr<platform::MemoryPool> pool_;
  std::shared_ptr<sentry::Vdso> vdso_;  // The kernel's clock.
  std::unique_ptr<platform::Platform> platform_;
  std::shared_ptr<gofer::Client> files_;
  std::unique_ptr<sentry::Kernel> kernel_;
  GuestDevices devices_;
  std::unique_ptr<GuestProcess> init_;
  std::unique_ptr<GuestExecs> execs_;
  absl::Notification start_;  // Of a container's first process.
  std::unique_ptr<GuestControl> control_;
  std::atomic<int32_t> init_pid_{0};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Guest>> Guest::Prepare(BootConfig config, GuestFds fds,
                                                      const Timing& timing) {
  auto guest = std::make_unique<SandboxGuest>(std::move(config), std::move(fds), timing);
  if (absl::Status status = guest->Start(); !status.ok()) return status;
  return std::unique_ptr<Guest>(std::move(guest));
}

}  // namespace runsc
