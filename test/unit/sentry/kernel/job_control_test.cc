#include "sentry/kernel/job_control.h"

#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "catch2/catch.hpp"
#include "sentry/kernel/pid_namespace.h"
#include "test/support/test_task.h"

namespace {

using sentry::JobControl;
using sentry::SignalBit;
using test::TestTask;

class FakeTerminal : public sentry::ControllingTerminal {
 public:
  uint64_t device() const override { return 0x8803; }
  void OnDisassociated(bool) override { ++disassociated; }
  int disassociated = 0;
};

TEST_CASE("a session leader takes a terminal, others do not", "[job_control]") {
  TestTask task;
  const auto terminal = std::make_shared<FakeTerminal>();
  const sentry::TaskRef child = task.MakeChild();
  CHECK(JobControl::SetTerminal(*child, terminal, false).error() == EPERM);
  REQUIRE(JobControl::SetTerminal(task.task(), terminal, false).ok());
  CHECK(JobControl::SetTerminal(task.task(), terminal, false).ok());  // Has it already.
  CHECK(JobControl::Foreground(task.task(), *terminal).value() == 2);
  CHECK(task.task().group().terminal_device() == 0x8803);
  CHECK(child->group().terminal_foreground() == 2);
}

TEST_CASE("another session's terminal can only be stolen with CAP_SYS_ADMIN", "[job_control]") {
  TestTask task;
  const auto terminal = std::make_shared<FakeTerminal>();
  REQUIRE(JobControl::SetTerminal(task.task(), terminal, false).ok());
  const sentry::TaskRef child = task.MakeChild();
  REQUIRE(task.CallAs(*child, SYS_setsid) == 3);
  CHECK(JobControl::SetTerminal(*child, terminal, false).error() == EPERM);
  CHECK(JobControl::SetTerminal(*child, terminal, true).ok());
  CHECK(JobControl::Foreground(task.task(), *terminal).error() == ENOTTY);
}

TEST_CASE("a background process is stopped by reads and changes of the foreground",
          "[job_control]") {
  TestTask task;
  const auto terminal = std::make_shared<FakeTerminal>();
  REQUIRE(JobControl::SetTerminal(task.task(), terminal, false).ok());
  const sentry::TaskRef child = task.MakeChild();
  REQUIRE(task.Call(SYS_setpgid, 3, 3) == 0);
  CHECK(JobControl::CheckAccess(task.task(), *terminal, SIGTTIN).ok());
  CHECK(JobControl::CheckAccess(*child, *terminal, SIGTTIN).error() == base::kRestartSys);
  CHECK((child->pending_signals() & SignalBit(SIGTTIN)) != 0);
  CHECK(JobControl::SetForeground(*child, *terminal, 3).error() == base::kRestartSys);
  child->set_signal_mask(SignalBit(SIGTTOU) | SignalBit(SIGTTIN));
  CHECK(JobControl::SetForeground(*child, *terminal, 3).ok());
  CHECK(JobControl::CheckAccess(task.task(), *terminal, SIGTTIN).error() ==
        EIO);  // Orphaned: its parent is elsewhere.
  REQUIRE(JobControl::SetForeground(*child, *terminal, 2).ok());
  CHECK(JobControl::CheckAccess(*child, *terminal, SIGTTIN).error() == EIO);  // Blocked.
  CHECK(JobControl::SetForeground(task.task(), *terminal, 77).error() == ESRCH);
  CHECK(JobControl::SetForeground(task.task(), *terminal, -1).error() == EINVAL);
}

TEST_CASE("the foreground group gets the terminal's signals", "[job_control]") {
  TestTask task;
  const auto terminal = std::make_shared<FakeTerminal>();
  REQUIRE(JobControl::SetTerminal(task.task(), terminal, false).ok());
  const sentry::TaskRef child = task.MakeChild();
  REQUIRE(task.Call(SYS_setpgid, 3, 3) == 0);
  REQUIRE(JobControl::SetForeground(task.task(), *terminal, 3).ok());
  child->set_signal_mask(SignalBit(SIGINT));
  JobControl::SignalForeground(task.kernel(), *terminal, SIGINT);
  CHECK((child->pending_signals() & SignalBit(SIGINT)) != 0);
  CHECK((task.task().pending_signals() & SignalBit(SIGINT)) == 0);
}

TEST_CASE("the session's leader hangs up on leaving", "[job_control]") {
  TestTask task;
  const auto terminal = std::make_shared<FakeTerminal>();
  const sentry::TaskRef leader = task.MakeChild();
  REQUIRE(task.CallAs(*leader, SYS_setsid) == 3);
  REQUIRE(JobControl::SetTerminal(*leader, terminal, false).ok());
  TestTask::Exit(*leader, 0);
  CHECK(terminal->disassociated == 1);
}

TEST_CASE("giving the terminal up tells the foreground group", "[job_control]") {
  TestTask task;
  const auto terminal = std::make_shared<FakeTerminal>();
  FakeTerminal other;
  REQUIRE(JobControl::SetTerminal(task.task(), terminal, false).ok());
  task.task().set_signal_mask(SignalBit(SIGHUP) | SignalBit(SIGCONT));
  CHECK(JobControl::ReleaseTerminal(task.task(), other).error() == ENOTTY);
  CHECK(JobControl::ReleaseTerminal(task.task(), *terminal).ok());
  CHECK((task.task().pending_signals() & SignalBit(SIGHUP)) != 0);
  CHECK(task.task().group().terminal() == nullptr);
}

}  // namespace
