#include <linux/capability.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cerrno>

#include "catch2/catch.hpp"
#include "sentry/kernel/pid_namespace.h"
#include "test/support/test_task.h"

namespace {

using test::TestTask;

TEST_CASE("ids of a fresh process", "[syscalls][process]") {
  TestTask task;
  CHECK(task.Call(SYS_getpid) == 2);
  CHECK(task.Call(SYS_gettid) == 2);
  CHECK(task.Call(SYS_getppid) == 1);
  CHECK(task.Call(SYS_getpgrp) == 2);
  CHECK(task.Call(SYS_getsid, 0) == 2);
  CHECK(task.Call(SYS_getsid, 99) == -ESRCH);
}

TEST_CASE("a thread shares the process id and has its own", "[syscalls][process]") {
  TestTask task;
  const sentry::TaskRef thread = task.MakeThread();
  CHECK(task.CallAs(*thread, SYS_getpid) == 2);
  CHECK(task.CallAs(*thread, SYS_gettid) == 3);
  CHECK(task.task().group().live_tasks() == 2);
  TestTask::Exit(*thread, 0);
  CHECK(task.task().group().live_tasks() == 1);
  CHECK(task.kernel().pids().FindTask(3) == nullptr);
}

TEST_CASE("wait4 reports an exit status once and then has no children", "[syscalls][wait]") {
  TestTask task;
  CHECK(task.Call(SYS_wait4, -1, 0, 0, 0) == -ECHILD);
  const sentry::TaskRef child = task.MakeChild();
  CHECK(task.Call(SYS_wait4, -1, 0, WNOHANG, 0) == 0);
  TestTask::Exit(*child, 42 << 8);
  CHECK(task.kernel().pids().FindTask(3) != nullptr);
  CHECK(task.Call(SYS_wait4, -1, TestTask::kPage, 0, 0) == 3);
  CHECK(WEXITSTATUS(task.Peek<int>(TestTask::kPage)) == 42);
  CHECK(task.Call(SYS_wait4, -1, 0, 0, 0) == -ECHILD);
  CHECK(task.kernel().pids().FindTask(3) == nullptr);
  CHECK((task.task().pending_signals() & sentry::SignalBit(SIGCHLD)) == 0);  // Ignored by default.
}

TEST_CASE("wait4 refuses unknown options and INT_MIN", "[syscalls][wait]") {
  TestTask task;
  CHECK(task.Call(SYS_wait4, -1, 0, 0x40, 0) == -EINVAL);
  CHECK(task.Call(SYS_wait4, INT32_MIN, 0, 0, 0) == -ESRCH);
  CHECK(task.Call(SYS_waitid, P_ALL, 0, 0, 0, 0) == -EINVAL);
  CHECK(task.Call(SYS_waitid, 9, 0, 0, WEXITED, 0) == -EINVAL);
  CHECK(task.Call(SYS_waitid, P_PID, 0, 0, WEXITED, 0) == -EINVAL);
}

TEST_CASE("waitid with WNOWAIT leaves the child", "[syscalls][wait]") {
  TestTask task;
  const sentry::TaskRef child = task.MakeChild();
  TestTask::Exit(*child, SIGTERM);
  CHECK(task.Call(SYS_waitid, P_PID, 3, TestTask::kPage, WEXITED | WNOWAIT, 0) == 0);
  CHECK(task.Peek<int>(TestTask::kPage) == SIGCHLD);
  CHECK(task.Peek<int>(TestTask::kPage + 8) == CLD_KILLED);
  CHECK(task.Peek<int>(TestTask::kPage + 16) == 3);
  CHECK(task.Peek<int>(TestTask::kPage + 24) == SIGTERM);
  CHECK(task.Call(SYS_waitid, P_PID, 3, 0, WEXITED, 0) == 0);
  CHECK(task.Call(SYS_waitid, P_PID, 3, 0, WEXITED, 0) == -ECHILD);
}

TEST_CASE("a parent that ignores SIGCHLD leaves no zombies", "[syscalls][wait]") {
  TestTask task;
  task.Poke(TestTask::kPage, std::array<uint64_t, 4>{1, 0, 0, 0});
  REQUIRE(task.Call(SYS_rt_sigaction, SIGCHLD, TestTask::kPage, 0, 8) == 0);
  const sentry::TaskRef child = task.MakeChild();
  TestTask::Exit(*child, 0);
  CHECK(task.kernel().pids().FindTask(3) == nullptr);
  CHECK(task.Call(SYS_wait4, -1, 0, 0, 0) == -ECHILD);
}

TEST_CASE("an orphan goes to init, or to a subreaper before it", "[syscalls][process]") {
  const bool subreaper = GENERATE(false, true);
  TestTask task;
  if (subreaper) REQUIRE(task.Call(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
  const sentry::TaskRef child = task.MakeChild();
  REQUIRE(child->PrepareReturnToGuest());
  // The grandchild.
  task.Poke(TestTask::kPage, 0);
  const int64_t grandchild = task.CallAs(*child, SYS_fork);
  REQUIRE(grandchild == 4);
  TestTask::Exit(*child, 0);
  const auto group = task.kernel().pids().FindGroup(4);
  REQUIRE(group != nullptr);
  CHECK(group->parent_id() == (subreaper ? 2 : 1));
}

TEST_CASE("clone refuses inconsistent flags", "[syscalls][clone]") {
  const uint64_t flags =
      GENERATE(uint64_t{CLONE_THREAD}, uint64_t{CLONE_SIGHAND}, uint64_t{CLONE_FS | CLONE_NEWNS},
               uint64_t{CLONE_THREAD | CLONE_SIGHAND}, uint64_t{CLONE_FS | CLONE_NEWUSER});
  CAPTURE(flags);
  TestTask task;
  CHECK(task.Call(SYS_clone, flags, 0, 0, 0, 0) == -EINVAL);
  CHECK(task.kernel().pids().task_count() == 2);
}

TEST_CASE("clone without CAP_SYS_ADMIN may not make namespaces", "[syscalls][clone]") {
  TestTask task;
  REQUIRE(task.Call(SYS_setresuid, 1000, 1000, 1000) == 0);
  CHECK(task.Call(SYS_clone, CLONE_NEWPID, 0, 0, 0, 0) == -EPERM);
  CHECK(task.Call(SYS_unshare, CLONE_NEWNET) == -EPERM);
}

TEST_CASE("clone3 checks its structure", "[syscalls][clone]") {
  TestTask task;
  std::array<uint64_t, 12> args{};
  task.Poke(TestTask::kPage, args);
  CHECK(task.Call(SYS_clone3, TestTask::kPage, 63) == -EINVAL);
  CHECK(task.Call(SYS_clone3, TestTask::kPage, 4097) == -E2BIG);
  args[11] = 1;  // Beyond what is known.
  task.Poke(TestTask::kPage, args);
  CHECK(task.Call(SYS_clone3, TestTask::kPage, 96) == -E2BIG);
  args = {};
  args[4] = 65;  // exit_signal
  task.Poke(TestTask::kPage, args);
  CHECK(task.Call(SYS_clone3, TestTask::kPage, 88) == -EINVAL);
  args = {};
  args[5] = 4096;  // stack without size
  task.Poke(TestTask::kPage, args);
  CHECK(task.Call(SYS_clone3, TestTask::kPage, 88) == -EINVAL);
  CHECK(task.Call(SYS_clone3, TestTask::kPageEnd - 8, 64) == -EFAULT);
}

TEST_CASE("a forked child runs, is killed and reaped", "[syscalls][clone]") {
  TestTask task;
  const int64_t child = task.Call(SYS_fork);
  REQUIRE(child == 3);
  CHECK(task.Call(SYS_wait4, -1, 0, WNOHANG, 0) == 0);
  CHECK(task.Call(SYS_kill, child, SIGKILL) == 0);
  CHECK(task.Call(SYS_wait4, -1, TestTask::kPage, 0, 0) == child);
  CHECK(task.Peek<int>(TestTask::kPage) == SIGKILL);
}

TEST_CASE("setpgid follows the rules of sessions", "[syscalls][job_control]") {
  TestTask task;
  CHECK(task.Call(SYS_setpgid, 0, 0) == -EPERM);  // A session leader.
  CHECK(task.Call(SYS_setpgid, 1, 1) == -ESRCH);
  CHECK(task.Call(SYS_setpgid, 0, -1) == -EINVAL);
  const sentry::TaskRef child = task.MakeChild();
  CHECK(task.Call(SYS_setpgid, 3, 77) == -EPERM);
  CHECK(task.Call(SYS_setpgid, 3, 0) == 0);
  CHECK(task.Call(SYS_getpgid, 3) == 3);
  CHECK(task.CallAs(*child, SYS_setsid) == -EPERM);  // Leads a group.
  CHECK(task.Call(SYS_setpgid, 3, 2) == 0);
  CHECK(task.CallAs(*child, SYS_setsid) == 3);
  CHECK(task.Call(SYS_setpgid, 3, 2) == -EPERM);  // Another session now.
}

TEST_CASE("a pidfd becomes readable when the process ends", "[syscalls][pidfd]") {
  TestTask task;
  const sentry::TaskRef child = task.MakeChild();
  CHECK(task.Call(SYS_pidfd_open, 3, 1) == -EINVAL);
  CHECK(task.Call(SYS_pidfd_open, 99, 0) == -ESRCH);
  const int64_t fd = task.Call(SYS_pidfd_open, 3, 0);
  REQUIRE(fd >= 0);
  const sentry::FileRef file = task.fds().Get(static_cast<int>(fd)).value();
  CHECK(file->Poll(sentry::kPollReadable) == 0);
  CHECK(task.Call(SYS_pidfd_send_signal, fd, 0, 0, 0) == 0);
  TestTask::Exit(*child, 0);
  CHECK(file->Poll(sentry::kPollReadable) == sentry::kPollReadable);
  CHECK(task.Call(SYS_waitid, P_PIDFD, fd, 0, WEXITED, 0) == 0);
  CHECK(task.Call(SYS_pidfd_send_signal, fd, 0, 0, 0) == -ESRCH);
}

TEST_CASE("names are cut at fifteen bytes", "[syscalls][prctl]") {
  TestTask task;
  task.PokeString(TestTask::kPage, "a name that is too long");
  CHECK(task.Call(SYS_prctl, PR_SET_NAME, TestTask::kPage, 0, 0, 0) == 0);
  CHECK(task.Call(SYS_prctl, PR_GET_NAME, TestTask::kPage + 64, 0, 0, 0) == 0);
  CHECK(task.PeekString(TestTask::kPage + 64) == "a name that is ");
}

TEST_CASE("an ambient capability must be permitted and inheritable", "[syscalls][prctl]") {
  TestTask task;
  CHECK(task.Call(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0) == -EPERM);
  CHECK(task.Call(SYS_prctl, PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0) == 1);
  CHECK(task.Call(SYS_prctl, PR_CAPBSET_DROP, CAP_CHOWN, 0, 0, 0) == 0);
  CHECK(task.Call(SYS_prctl, PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0) == 0);
  CHECK(task.Call(SYS_prctl, PR_CAPBSET_READ, 64, 0, 0, 0) == -EINVAL);
}

}  // namespace
