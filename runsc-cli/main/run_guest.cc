#include "runsc-cli/main/run_guest.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gofer/protocol/client.h"
#include "platform/base/log.h"
#include "platform/base/strings.h"
#include "platform/memory/memory_pool.h"
#include "platform/platform_factory.h"
#include "platform/stub/cpu_pair.h"
#include "runsc-cli/main/control_socket.h"
#include "runsc-cli/main/guest_control.h"
#include "runsc-cli/main/guest_mounts.h"
#include "runsc-cli/main/guest_network.h"
#include "runsc-cli/main/launch.h"
#include "sentry/fs/devpts/devpts.h"
#include "sentry/fs/host/host_file.h"
#include "sentry/kernel/kernel.h"
#include "sentry/loader/vdso.h"
#include "sentry/mm/rewrite_stats.h"
#include "sentry/time/host_clock.h"
#include "sentry/tty/console_pump.h"
#include "syscalls/dispatch.h"

namespace runsc {
namespace {

using base::Absl;
using base::Result;

// As a shell names the reasons why a program did not start.
constexpr int kNotExecutable = 126;
constexpr int kNotFound = 127;

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
  options.cpu_count = CountCpus();
  options.memory_bytes = HostMemoryBytes();
  options.strace = config.strace;
  options.init_is_killable = true;
  return options;
}

sentry::CredentialsRef MakeCredentials(const BootConfig& config) {
  auto credentials = std::make_shared<sentry::Credentials>(*sentry::RootCredentials());
  credentials->uid = credentials->euid = credentials->suid = credentials->fsuid = config.uid;
  credentials->gid = credentials->egid = credentials->sgid = credentials->fsgid = config.gid;
  credentials->groups = config.groups;
  if (config.uid != 0) credentials->permitted = credentials->effective = 0;
  return credentials;
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
    if (config_.terminal) {
      if (absl::Status status = StartConsole(); !status.ok()) return status;
    }
    absl::Status mounted = MountGuestTree(*kernel_, files_, config_, devices_);
    timing_.Note("has its tree");
    return mounted;
  }

  std::string_view platform_name() const override { return platform_->name(); }

  int Run() override {
    control_ = std::make_unique<GuestControl>(fds_.control.get(), files_->peer_fd(),
                                              [this](const Frame& frame) { OnFrame(frame); });
    sentry::ProcessArguments process = MakeProcess();
    if (absl::Status status = OpenStdio(*process.fds); !status.ok())
      return Fail(kOwnFailure, status.message());
    const Result<int32_t> pid = kernel_->CreateProcess(process);
    if (!pid.ok()) return FailToExecute(pid.error());
    init_.store(pid.value());
    timing_.Note("starts the guest");
    (void)SendFrame(fds_.control.get(), FrameKind::kStarted, 0).ok();
    const Result<int32_t> status = kernel_->WaitForExit(pid.value());
    timing_.Note("sees the end of the guest");
    // What else runs in there goes with this process, which is what the end of a first process
    // means anyway; what it has written is written.
    if (console_ != nullptr) console_->Finish();
    LOG_INFO("%s", sentry::Describe(kernel_->rewrite_stats()).c_str());
    if (!status.ok()) return Fail(kOwnFailure, "the first process was lost");
    const int code =
        WIFSIGNALED(status.value()) ? 128 + WTERMSIG(status.value()) : WEXITSTATUS(status.value());
    control_->Finish();
    (void)SendFrame(fds_.control.get(), FrameKind::kExited, code).ok();
    return code;
  }

 private:
  int Fail(int code, absl::string_view message) {
    control_->Finish();
    const std::string line(message);
    LOG_ERROR("%s", line.c_str());
    (void)SendFrame(fds_.control.get(), FrameKind::kFailed, code, line).ok();
    return code;
  }

  int FailToExecute(base::Errno error) {
    const std::string& program = config_.arguments.front();
    const bool searched = program.find('/') == std::string::npos;
    if (error == ENOENT && searched)
      return Fail(kNotFound, absl::StrCat(program, ": command not found in the sandbox's PATH"));
    if (error == ENOENT)
      return Fail(kNotFound, absl::StrCat(program, ": no such file in the sandbox"));
    if (error == ENOEXEC) {
      return Fail(
          kNotExecutable,
          absl::StrCat(program,
                       ": cannot execute: not a script and not a program for x86-64 Linux"));
    }
    return Fail(kNotExecutable,
                absl::StrCat(program, ": cannot execute: ", strerror(error.value())));
  }

  absl::Status StartConsole() {
    auto terminal = devices_.dev_pts->NewTerminal(*MakeCredentials(config_));
    if (!terminal.ok()) return absl::ResourceExhaustedError("cannot make the sandbox's terminal");
    devices_.console = std::move(terminal).value();
    // One of the three is the host's terminal; output goes to the first that is.
    int output = -1;
    for (const int fd : {1, 2, 0}) {
      if ((config_.stdio_terminals >> fd & 1) != 0 && output < 0) output = fd;
    }
    base::Fd host_output(dup(fds_.stdio[output].get()));
    base::Fd host_input((config_.stdio_terminals & 1) != 0 ? dup(fds_.stdio[0].get()) : -1);
    auto console =
        sentry::ConsolePump::Start(devices_.console, std::move(host_input), std::move(host_output));
    if (!console.ok()) return absl::ResourceExhaustedError("cannot connect the sandbox's terminal");
    console_ = std::move(console).value();
    console_->SetSize({config_.terminal_size.ws_row, config_.terminal_size.ws_col,
                       config_.terminal_size.ws_xpixel, config_.terminal_size.ws_ypixel});
    return absl::OkStatus();
  }

  sentry::ProcessArguments MakeProcess() {
    sentry::ProcessArguments process;
    process.argv = config_.arguments;
    process.environment = config_.environment;
    process.working_directory = config_.cwd;
    process.fds = std::make_shared<sentry::FdTable>();
    process.credentials = MakeCredentials(config_);
    process.umask = config_.umask;
    for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
      const rlimit& limit = config_.limits[static_cast<size_t>(resource)];
      process.limits.emplace_back(resource, sentry::ResourceLimit{limit.rlim_cur, limit.rlim_max});
    }
    process.terminal = devices_.console;
    return process;
  }

  // Descriptors 0, 1 and 2: the console where the caller has a terminal, else the caller's own.
  absl::Status OpenStdio(sentry::FdTable& table) {
    const auto host_files = sentry::NewHostFileSystem(*kernel_);
    constexpr uint64_t kFdLimit = 3;
    for (int fd = 0; fd < 3; ++fd) {
      if (!fds_.stdio[fd].valid()) continue;
      Result<sentry::FileRef> file = base::Errno(ENOTTY);
      if (console_ != nullptr && (config_.stdio_terminals >> fd & 1) != 0) {
        file = OpenConsole();
      } else {
        file = sentry::NewHostFile(*kernel_, host_files, std::move(fds_.stdio[fd]),
                                   {config_.uid, config_.gid});
      }
      if (!file.ok()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "cannot use descriptor ", fd, " in the sandbox: ", strerror(file.error().value())));
      }
      const Result<int32_t> number = table.Install(std::move(file).value(), false, kFdLimit, fd);
      if (!number.ok())
        return absl::InternalError(absl::StrCat("descriptor ", fd, " cannot be installed"));
    }
    return absl::OkStatus();
  }

  Result<sentry::FileRef> OpenConsole() {
    if (console_file_ == nullptr) {
      const sentry::Path path =
          TRY(kernel_->vfs().WalkAsKernel(absl::StrCat("/dev/pts/", devices_.console->index())));
      console_file_ =
          TRY(devices_.console->OpenSlave(nullptr, path, O_RDWR, MakeCredentials(config_)));
    }
    return console_file_;
  }

  // On the control thread.
  void OnFrame(const Frame& frame) {
    if (frame.kind == FrameKind::kWindowSize && console_ != nullptr) {
      const auto packed = static_cast<uint64_t>(frame.value);
      console_->SetSize({static_cast<uint16_t>(packed), static_cast<uint16_t>(packed >> 16),
                         static_cast<uint16_t>(packed >> 32), static_cast<uint16_t>(packed >> 48)});
    } else if (frame.kind == FrameKind::kSignal && init_.load() != 0) {
      const auto signal = static_cast<int32_t>(frame.value);
      // A signal that init ignores or does not handle is lost, as kill(2) of a container's init is.
      (void)kernel_->SignalForeground(init_.load(), signal).ok();
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
  std::unique_ptr<sentry::ConsolePump> console_;
  sentry::FileRef console_file_;
  std::unique_ptr<GuestControl> control_;
  std::atomic<int32_t> init_{0};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Guest>> Guest::Prepare(BootConfig config, GuestFds fds,
                                                      const Timing& timing) {
  auto guest = std::make_unique<SandboxGuest>(std::move(config), std::move(fds), timing);
  if (absl::Status status = guest->Start(); !status.ok()) return status;
  return std::unique_ptr<Guest>(std::move(guest));
}

}  // namespace runsc
