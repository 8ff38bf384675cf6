#include "runsc-cli/main/guest_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "runsc-cli/main/launch.h"
#include "sentry/fs/devpts/devpts.h"
#include "sentry/fs/host/host_file.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/seccomp.h"
#include "sentry/vfs/attributes.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/fd_table.h"
#include "sentry/vfs/inode.h"

namespace runsc {
namespace {

using base::Result;

// As a shell names the reasons why a program did not start.
constexpr int kNotExecutable = 126;
constexpr int kNotFound = 127;

sentry::CredentialsRef MakeCredentials(const ProcessConfig& config) {
  auto credentials = std::make_shared<sentry::Credentials>(*sentry::RootCredentials());
  credentials->uid = credentials->euid = credentials->suid = credentials->fsuid = config.uid;
  credentials->gid = credentials->egid = credentials->sgid = credentials->fsgid = config.gid;
  credentials->groups = config.groups;
  std::sort(credentials->groups.begin(), credentials->groups.end());
  credentials->no_new_privileges = config.no_new_privileges;
  if (config.has_capabilities) {
    const auto& sets = config.capabilities;
    credentials->bounding = sets[0] & sentry::kAllCapabilities;
    credentials->effective = sets[1] & sets[3] & sentry::kAllCapabilities;
    credentials->inheritable = sets[2] & sentry::kAllCapabilities;
    credentials->permitted = sets[3] & sentry::kAllCapabilities;
    credentials->ambient = sets[4] & sets[3] & sets[2] & sentry::kAllCapabilities;
  } else if (config.uid != 0) {
    credentials->permitted = credentials->effective = 0;
  }
  return credentials;
}

std::string_view SearchPath(const std::vector<std::string>& environment) {
  for (const std::string& variable : environment) {
    if (variable.starts_with("PATH=")) return std::string_view(variable).substr(5);
  }
  return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

}  // namespace

GuestProcess::GuestProcess(sentry::Kernel& kernel, std::shared_ptr<sentry::DevPts> dev_pts,
                           const ProcessConfig& config, StdioFds stdio)
    : kernel_(kernel), dev_pts_(std::move(dev_pts)), config_(config), stdio_(std::move(stdio)) {}

absl::Status GuestProcess::OpenTerminal() {
  auto terminal = dev_pts_->NewTerminal(*MakeCredentials(config_));
  if (!terminal.ok()) return absl::ResourceExhaustedError("cannot make the sandbox's terminal");
  terminal_ = std::move(terminal).value();
  // One of the three is the host's terminal; output goes to the first that is.
  int output = -1;
  for (const int fd : {1, 2, 0}) {
    if ((config_.stdio_terminals >> fd & 1) != 0 && output < 0) output = fd;
  }
  if (output < 0) return absl::InvalidArgumentError("no descriptor is a terminal");
  const auto copy = [this](size_t fd) {
    return base::Fd(fcntl(stdio_[fd].get(), F_DUPFD_CLOEXEC, 0));
  };
  base::Fd host_output = copy(static_cast<size_t>(output));
  base::Fd host_input = (config_.stdio_terminals & 1) != 0 ? copy(0) : base::Fd();
  auto console =
      sentry::ConsolePump::Start(terminal_, std::move(host_input), std::move(host_output));
  if (!console.ok()) return absl::ResourceExhaustedError("cannot connect the sandbox's terminal");
  console_ = std::move(console).value();
  console_->SetSize({config_.terminal_size.ws_row, config_.terminal_size.ws_col,
                     config_.terminal_size.ws_xpixel, config_.terminal_size.ws_ypixel});
  return absl::OkStatus();
}

absl::StatusOr<sentry::ProcessArguments> GuestProcess::MakeArguments() const {
  sentry::ProcessArguments process;
  process.argv = config_.arguments;
  process.environment = config_.environment;
  process.working_directory = config_.cwd;
  process.fds = std::make_shared<sentry::FdTable>();
  process.credentials = MakeCredentials(config_);
  process.umask = config_.umask;
  process.oom_score_adjust = config_.oom_score_adjust;
  for (int resource = 0; resource < RLIM_NLIMITS; ++resource) {
    const rlimit& limit = config_.limits[static_cast<size_t>(resource)];
    process.limits.emplace_back(resource, sentry::ResourceLimit{limit.rlim_cur, limit.rlim_max});
  }
  process.terminal = terminal_;
  return process;
}

// 0, or why it is no program.
int GuestProcess::LookAt(const std::string& path) const {
  const Result<sentry::Path> found = kernel_.vfs().WalkAsKernel(path);
  if (!found.ok()) return found.error().value();
  const Result<sentry::Attributes> attributes = found.value().dentry->inode()->GetAttributes();
  if (!attributes.ok()) return attributes.error().value();
  const uint32_t mode = attributes.value().mode;
  return S_ISREG(mode) && (mode & 0111) != 0 ? 0 : EACCES;
}

GuestProcess::Failure GuestProcess::Look() const {
  const std::string& program = config_.arguments.front();
  const auto absolute = [this](const std::string& path) {
    return path.starts_with('/') ? path : absl::StrCat(config_.cwd, "/", path);
  };
  int error = ENOENT;
  if (program.empty() || program.find('/') != std::string::npos) {
    error = program.empty() ? ENOENT : LookAt(absolute(program));
    return error == 0 ? Failure{} : FailToExecute(base::Errno(error));
  }
  std::string_view rest = SearchPath(config_.environment);
  bool more = true;
  while (more) {
    const size_t end = std::min(rest.find(':'), rest.size());
    const std::string directory(end == 0 ? std::string_view(".") : rest.substr(0, end));
    more = end < rest.size();
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const int tried = LookAt(absl::StrCat(absolute(directory), "/", program));
    if (tried == 0) return {};
    if (tried != ENOENT && tried != ENOTDIR) error = tried;
  }
  return FailToExecute(base::Errno(error));
}

GuestProcess::Failure GuestProcess::Start() {
  absl::StatusOr<sentry::ProcessArguments> process = MakeArguments();
  absl::Status status = process.status();
  if (status.ok()) status = OpenStdio(*process->fds);
  if (!status.ok()) return {kOwnFailure, std::string(status.message())};
  const Result<int32_t> pid =
      config_.seccomp.empty() ? kernel_.CreateProcess(*process) : CreateFiltered(*process);
  if (!pid.ok()) return FailToExecute(pid.error());
  pid_ = pid.value();
  return {};
}

// The filter holds from the program's first instruction: until it is there nothing runs.
Result<int32_t> GuestProcess::CreateFiltered(const sentry::ProcessArguments& arguments) {
  std::vector<sentry::BpfInstruction> program(config_.seccomp.size() /
                                              sizeof(sentry::BpfInstruction));
  memcpy(program.data(), config_.seccomp.data(), program.size() * sizeof(sentry::BpfInstruction));
  static absl::Mutex one_at_a_time(absl::kConstInit);
  const absl::MutexLock lock(&one_at_a_time);
  const bool was_paused = kernel_.IsPaused();
  if (!was_paused) kernel_.Pause();
  Result<int32_t> pid = kernel_.CreateProcess(arguments);
  if (pid.ok()) {
    const sentry::TaskRef task = kernel_.pids().FindTask(pid.value());
    const Result<int32_t> added =
        task == nullptr ? base::Errno(ESRCH)
                        : sentry::Seccomp::AddFilter(*task, std::move(program), false);
    if (!added.ok()) {
      (void)kernel_.SignalProcess(pid.value(), SIGKILL).ok();
      pid = added.error();
    }
  }
  if (!was_paused) kernel_.Resume();
  return pid;
}

int GuestProcess::WaitForExit() {
  const Result<int32_t> status = kernel_.WaitForExit(pid_);
  if (console_ != nullptr) console_->Finish();
  if (!status.ok()) return kOwnFailure;
  return WIFSIGNALED(status.value()) ? 128 + WTERMSIG(status.value()) : WEXITSTATUS(status.value());
}

GuestProcess::Failure GuestProcess::FailToExecute(base::Errno error) const {
  const std::string& program = config_.arguments.front();
  if (error == ENOENT && program.find('/') == std::string::npos) {
    return {kNotFound, absl::StrCat("exec: \"", program, "\": executable file not found in $PATH")};
  }
  if (error == ENOENT || error == ENOTDIR) {
    return {kNotFound, absl::StrCat("exec: \"", program, "\": stat ", program, ": ",
                                    "no such file or directory")};
  }
  if (error == ENOEXEC)
    return {kNotExecutable, absl::StrCat("exec ", program, ": exec format error")};
  if (error == EACCES) {
    return {kNotExecutable, absl::StrCat("exec: \"", program, "\": permission denied")};
  }
  return {kNotExecutable, absl::StrCat("exec: \"", program, "\": ", strerror(error.value()))};
}

// Descriptors 0, 1 and 2: the console where the caller has a terminal, else the caller's own.
absl::Status GuestProcess::OpenStdio(sentry::FdTable& table) {
  const auto host_files = sentry::NewHostFileSystem(kernel_);
  constexpr uint64_t kFdLimit = 3;
  for (int fd = 0; fd < 3; ++fd) {
    base::Fd& host = stdio_[static_cast<size_t>(fd)];
    if (!host.valid()) continue;
    Result<sentry::FileRef> file = base::Errno(ENOTTY);
    if (console_ != nullptr && (config_.stdio_terminals >> fd & 1) != 0) {
      file = OpenConsole();
      host.Reset();
    } else {
      file = sentry::NewHostFile(kernel_, host_files, std::move(host), {config_.uid, config_.gid});
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

Result<sentry::FileRef> GuestProcess::OpenConsole() {
  if (console_file_ == nullptr) {
    const sentry::Path path =
        TRY(kernel_.vfs().WalkAsKernel(absl::StrCat("/dev/pts/", terminal_->index())));
    console_file_ = TRY(terminal_->OpenSlave(nullptr, path, O_RDWR, MakeCredentials(config_)));
  }
  return console_file_;
}

}  // namespace runsc
