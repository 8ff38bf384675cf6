#include "runsc-cli/main/cage.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "runsc-cli/main/boot_config.h"
#include "runsc-cli/main/sanitizer.h"
#include "runsc-cli/main/timing.h"

namespace runsc {
namespace {

constexpr int kFirstPassedFd = 3;

// What the child writes to its exec_error pipe.
struct StartError {
  int error;
  char step[60];
};

[[noreturn]] void Fail(int error_fd, const char* step) {
  StartError report{errno, {}};
  strncpy(report.step, step, sizeof(report.step) - 1);
  // If runsc has gone there is nobody to tell.
  [[maybe_unused]] const ssize_t written = write(error_fd, &report, sizeof(report));
  _exit(125);
}

bool SetCapabilities(uint64_t bits) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (unsigned half = 0; half < 2; ++half) {
    const auto word = static_cast<uint32_t>(bits >> (32 * half));
    data[half].permitted = word;
    data[half].effective = word;
  }
  return syscall(SYS_capset, &header, data) == 0;
}

// A read-only, empty root. The old one is detached, which leaves descriptors into it usable. A
// mount point is needed that exists everywhere: /proc does, because the id maps have just been
// written through it.
void EnterEmptyRoot(int error_fd) {
  // Else what follows would propagate to the host when there is no user namespace.
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    Fail(error_fd, "make the mounts private");
  }
  const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (mount("none", "/proc", "tmpfs", flags, "size=4k,nr_inodes=2,mode=555") != 0) {
    Fail(error_fd, "mount an empty root");
  }
  if (chdir("/proc") != 0) Fail(error_fd, "enter the empty root");
  if (syscall(SYS_pivot_root, ".", ".") != 0) Fail(error_fd, "change to the empty root");
  if (umount2(".", MNT_DETACH) != 0) Fail(error_fd, "detach the host's root");
  if (chdir("/") != 0) Fail(error_fd, "enter the empty root");
}

// The gofer opens what it has found by descriptor, through this directory, long after /proc is out
// of its sight. As a mount of its own nothing of /proc is above it.
void OpenOwnFdsDirectory(int number, int error_fd) {
  long opened =
      syscall(SYS_open_tree, AT_FDCWD, "/proc/self/fd", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (opened < 0) opened = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
  const int directory = static_cast<int>(opened);
  // A dup2 of a descriptor to itself would leave it to be closed by execve.
  if (directory < 0 ||
      (directory == number ? fcntl(number, F_SETFD, 0) : dup2(directory, number)) < 0) {
    Fail(error_fd, "open /proc/self/fd");
  }
}

void DropPrivileges(const CageSpec& spec, int error_fd) {
  for (int capability = 0; capability < 64; ++capability) {
    if ((spec.kept_capabilities >> capability & 1) != 0) continue;
    // EINVAL: past the last one that this kernel knows.
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) {
      if (errno == EINVAL) break;
      Fail(error_fd, "drop capabilities from the bounding set");
    }
  }
  if (spec.kept_capabilities == 0) {
    const unsigned long bits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                               SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                               SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    if (prctl(PR_SET_SECUREBITS, bits, 0, 0, 0) != 0) Fail(error_fd, "lock the secure bits");
  }
  if (spec.own_user_namespace) {
    // Refused where setgroups is denied, and then there is nothing to drop that counts inside.
    [[maybe_unused]] const long dropped = syscall(SYS_setgroups, 0, nullptr);
    if (syscall(SYS_setresgid, spec.inside_gid, spec.inside_gid, spec.inside_gid) != 0 ||
        syscall(SYS_setresuid, spec.inside_uid, spec.inside_uid, spec.inside_uid) != 0) {
      Fail(error_fd, "become the only user of its namespace");
    }
  }
  if (!SetCapabilities(spec.kept_capabilities)) Fail(error_fd, "drop capabilities");
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) Fail(error_fd, "set no_new_privs");
}

// Moves spec.fds to 3, 4, ...; everything else is closed on exec, `own` and the error pipe, which
// get other numbers, too.
void ArrangeDescriptors(const CageSpec& spec, std::initializer_list<int*> own, int& error_fd) {
  const int end = kFirstPassedFd + static_cast<int>(spec.fds.size());
  // First out of the way of the targets, so that no target is overwritten before it was moved.
  const auto move_up = [end, &error_fd](int fd) {
    const int moved = fcntl(fd, F_DUPFD_CLOEXEC, end);
    if (moved < 0) Fail(error_fd, "pass its descriptors (is the limit of open files very low?)");
    return moved;
  };
  error_fd = move_up(error_fd);
  for (int* const fd : own) {
    if (*fd >= 0) *fd = move_up(*fd);
  }
  std::vector<int> sources;
  for (const int fd : spec.fds) sources.push_back(fd < 0 ? -1 : move_up(fd));
  for (size_t i = 0; i < sources.size(); ++i) {
    const int target = kFirstPassedFd + static_cast<int>(i);
    if (sources[i] < 0) {
      close(target);  // Whatever the caller of runsc had there.
    } else if (dup2(sources[i], target) < 0) {
      Fail(error_fd, "pass its descriptors");
    }
  }
  if (syscall(SYS_close_range, end, ~0U, 1U << 2 /* CLOSE_RANGE_CLOEXEC */) != 0) {
    Fail(error_fd, "close descriptors (close_range needs Linux 5.11)");
  }
}

void ResetSignals() {
  struct sigaction action{};
  action.sa_handler = SIG_DFL;
  for (int signal = 1; signal <= SIGRTMAX; ++signal) sigaction(signal, &action, nullptr);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
}

[[noreturn]] void RunChild(const CageSpec& spec, int go_fd, int error_fd) {
  const Timing timing(spec.timing_fd < 0 ? -1 : kTimingFd, spec.timing_name);
  int program_fd = spec.program_fd;
  int shared_namespaces_fd = spec.share_namespaces_of;
  ArrangeDescriptors(spec, {&program_fd, &shared_namespaces_fd, &go_fd}, error_fd);
  timing.Note("exists, has its descriptors");
  if (spec.share_namespaces_of >= 0 &&
      setns(shared_namespaces_fd, CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0) {
    Fail(error_fd, "join the sentry's network namespace");
  }
  // No controlling terminal: the guest's keys come through descriptor 0, not as signals to us.
  setsid();
  ResetSignals();
  if (spec.own_fds_directory_at >= 0) OpenOwnFdsDirectory(spec.own_fds_directory_at, error_fd);
  // The ids are mapped once this byte comes; an end without it means that runsc has gone.
  char byte = 0;
  if (read(go_fd, &byte, 1) != 1) _exit(125);
  if (!kSanitized) EnterEmptyRoot(error_fd);
  DropPrivileges(spec, error_fd);
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  // After the ids changed, which clears it. If runsc died before this line, the ends of its sockets
  // tell.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) Fail(error_fd, "ask for its parent's death");
  timing.Note("is in its cage");
  char* const arguments[] = {const_cast<char*>(spec.name.c_str()), nullptr};
  char* const environment[] = {nullptr};
  syscall(SYS_execveat, program_fd, "", arguments, environment, AT_EMPTY_PATH);
  Fail(error_fd, "execute its program");
}

bool WriteFile(pid_t pid, const char* name, const std::string& text) {
  const std::string path = absl::StrCat("/proc/", pid, "/", name);
  const base::Fd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

absl::Status MapIds(const CageSpec& spec, pid_t pid) {
  // An unprivileged caller may map its group only once setgroups is given up.
  if (geteuid() != 0 && !WriteFile(pid, "setgroups", "deny")) {
    return absl::InternalError(absl::StrCat(
        "cannot write /proc/", pid, "/setgroups: ", strerror(errno), "; is /proc mounted?"));
  }
  if (WriteFile(pid, "uid_map", absl::StrCat(spec.inside_uid, " ", spec.outside_uid, " 1")) &&
      WriteFile(pid, "gid_map", absl::StrCat(spec.inside_gid, " ", spec.outside_gid, " 1"))) {
    return absl::OkStatus();
  }
  return absl::InternalError(absl::StrCat("cannot map ids into the user namespace of ", spec.name,
                                          ": ", strerror(errno),
                                          "; is /proc mounted and writable?"));
}

absl::Status CloneRefused(const CageSpec& spec) {
  const int error = errno;
  std::string remedy;
  if (error == EPERM || error == EACCES) {
    remedy =
        "; allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1 or "
        "kernel.apparmor_restrict_unprivileged_userns=0), or run as root, and not inside a chroot";
  } else if (error == ENOSPC || error == EUSERS) {
    remedy = "; raise the limits below /proc/sys/user (max_user_namespaces and its neighbours)";
  } else if (error == EAGAIN) {
    remedy = "; raise the limit of processes (ulimit -u)";
  }
  return absl::InternalError(
      absl::StrCat("cannot create the namespaces of ", spec.name, ": ", strerror(error), remedy));
}

}  // namespace

bool MayMakeNamespaces() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  return (data[0].effective >> CAP_SYS_ADMIN & 1) != 0;
}

absl::StatusOr<Caged> StartCaged(const CageSpec& spec) {
  int go[2];
  int error[2];
  if (pipe2(go, O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("cannot create a pipe: ", strerror(errno)));
  }
  const base::Fd go_reader(go[0]);
  const base::Fd go_writer(go[1]);
  if (pipe2(error, O_CLOEXEC) != 0) {
    return absl::InternalError(absl::StrCat("cannot create a pipe: ", strerror(errno)));
  }
  Caged child;
  child.exec_error = base::Fd(error[0]);
  const base::Fd error_writer(error[1]);

  // A network namespace is by far the dearest: half a millisecond to make, and as much to undo.
  const int flags =
      CLONE_NEWPID | CLONE_NEWNS |
      (spec.share_namespaces_of < 0 ? CLONE_NEWIPC | CLONE_NEWUTS : 0) |
      (spec.share_namespaces_of < 0 && spec.own_network_namespace ? CLONE_NEWNET : 0) |
      (spec.own_user_namespace ? CLONE_NEWUSER : 0) | CLONE_PIDFD | SIGCHLD;
  int pid_fd = -1;
  const long pid = syscall(SYS_clone, flags, nullptr, &pid_fd, nullptr, nullptr);
  if (pid < 0) return CloneRefused(spec);
  if (pid == 0) {
    close(go[1]);
    RunChild(spec, go[0], error[1]);
  }
  child.pid = static_cast<pid_t>(pid);
  child.pid_fd = base::Fd(pid_fd);

  absl::Status mapped = spec.own_user_namespace ? MapIds(spec, child.pid) : absl::OkStatus();
  if (!mapped.ok()) {
    // The child sees the end of its pipe and leaves; the caller reaps by pid_fd.
    return mapped;
  }
  if (write(go_writer.get(), "g", 1) != 1) {
    return absl::InternalError(absl::StrCat(spec.name, " ended before it was started"));
  }
  return child;
}

absl::Status TakeStartError(const CageSpec& spec, Caged& child) {
  StartError report{};
  const ssize_t got = read(child.exec_error.get(), &report, sizeof(report));
  child.exec_error.Reset();
  if (got != sizeof(report)) return absl::OkStatus();
  report.step[sizeof(report.step) - 1] = '\0';
  return absl::InternalError(
      absl::StrCat(spec.name, " cannot ", report.step, ": ", strerror(report.error)));
}

}  // namespace runsc
