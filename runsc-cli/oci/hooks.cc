#include "runsc-cli/oci/hooks.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "platform/base/fd.h"

namespace oci {
namespace {

constexpr size_t kErrorBytesMax = 4096;

[[noreturn]] void Execute(const Hook& hook, int input, int output) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  dup2(input, STDIN_FILENO);
  dup2(output, STDERR_FILENO);
  const int null = open("/dev/null", O_WRONLY);
  if (null >= 0) dup2(null, STDOUT_FILENO);
  syscall(SYS_close_range, 3, ~0U, 0);
  std::vector<char*> arguments;
  for (const std::string& argument : hook.args) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  if (arguments.empty()) arguments.push_back(const_cast<char*>(hook.path.c_str()));
  arguments.push_back(nullptr);
  std::vector<char*> environment;
  for (const std::string& entry : hook.env) environment.push_back(const_cast<char*>(entry.c_str()));
  environment.push_back(nullptr);
  execve(hook.path.c_str(), arguments.data(), environment.data());
  dprintf(STDERR_FILENO, "fork/exec %s: %s", hook.path.c_str(), strerror(errno));
  _exit(127);
}

absl::Status RunHook(const Hook& hook, const std::string& state) {
  int input[2];
  int output[2];
  if (pipe2(input, O_CLOEXEC) != 0) return absl::InternalError("cannot create a pipe");
  const base::Fd reader(input[0]);
  base::Fd writer(input[1]);
  if (pipe2(output, O_CLOEXEC) != 0) return absl::InternalError("cannot create a pipe");
  const base::Fd errors(output[0]);
  base::Fd error_writer(output[1]);
  // A state is far below the pipe's size, so this cannot wait for a hook that does not read.
  if (write(writer.get(), state.data(), state.size()) != static_cast<ssize_t>(state.size())) {
    return absl::InternalError("the state is too large for a hook");
  }
  const pid_t pid = fork();
  if (pid < 0) return absl::InternalError(absl::StrCat("fork: ", strerror(errno)));
  if (pid == 0) Execute(hook, reader.get(), error_writer.get());
  writer.Reset();
  error_writer.Reset();
  const base::Fd process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  timespec begin{};
  clock_gettime(CLOCK_MONOTONIC, &begin);
  std::string text;
  bool ended = false;
  while (!ended) {
    int timeout = -1;
    if (hook.timeout_s) {
      timespec now{};
      clock_gettime(CLOCK_MONOTONIC, &now);
      const int64_t spent_ms =
          (now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1'000'000;
      const int64_t left = *hook.timeout_s * 1000 - spent_ms;
      timeout = static_cast<int>(left < 0 ? 0 : left > 1'000'000 ? 1'000'000 : left);
    }
    pollfd ready[2] = {{process.get(), POLLIN, 0},
                       {text.size() < kErrorBytesMax ? errors.get() : -1, POLLIN, 0}};
    const int count = poll(ready, 2, timeout);
    if (count == 0) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
      return absl::DeadlineExceededError(
          absl::StrCat("hook ran past specified timeout of ", *hook.timeout_s, ".0s"));
    }
    char buffer[512];
    ssize_t got = 0;
    if (count > 0 && ready[1].revents != 0 &&
        (got = read(errors.get(), buffer, sizeof(buffer))) > 0) {
      text.append(buffer, static_cast<size_t>(got));
      continue;
    }
    ended = ready[0].revents != 0;
    // The hook closed its standard error and goes on.
    if (!ended && got == 0 && ready[1].revents != 0) {
      poll(ready, 1, timeout);
      ended = ready[0].revents != 0;
    }
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (status == 0) return absl::OkStatus();
  const std::string how = WIFSIGNALED(status)
                              ? absl::StrCat("signal: ", strsignal(WTERMSIG(status)))
                              : absl::StrCat("exit status ", WEXITSTATUS(status));
  return absl::InternalError(absl::StrCat("error running hook: ", how, ", stdout: , stderr: ",
                                          absl::StripTrailingAsciiWhitespace(text)));
}

}  // namespace

absl::Status RunHooks(const std::vector<Hook>& hooks, const char* kind, const std::string& state) {
  for (size_t i = 0; i < hooks.size(); ++i) {
    const absl::Status status = RunHook(hooks[i], state);
    if (!status.ok()) {
      return absl::InternalError(
          absl::StrCat("error running ", kind, " hook #", i, ": ", status.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace oci
