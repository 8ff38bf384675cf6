#pragma once

// Process groups, sessions and their terminal: the rules of setpgid(2), setsid(2), tcsetpgrp(3),
// ioctl_tty(2), and who is told when a group loses its last tie to its session (orphaned groups,
// POSIX 3.270).

#include <cstdint>
#include <memory>

#include "platform/base/result.h"
#include "sentry/kernel/process_group.h"

namespace sentry {

class Kernel;
class Task;
class ThreadGroup;

class JobControl {
 public:
  // --- System calls.
  static base::Result<void> SetProcessGroup(Task& task, int32_t pid, int32_t pgid);
  static base::Result<int32_t> SetSession(Task& task);

  // --- Terminals (sentry/fs/devpts and friends). The caller has checked that the file is a
  // terminal. TIOCSCTTY. EPERM unless the task leads a session without a terminal, or the terminal
  // is another session's and not
  // (`steal` and CAP_SYS_ADMIN). OK if it is this session's already.
  static base::Result<void> SetTerminal(Task& task, std::shared_ptr<ControllingTerminal> terminal,
                                        bool steal);
  // An open of a terminal without O_NOCTTY: takes it if SetTerminal would succeed for a session
  // leader and nobody has it.
  static void MaybeSetTerminal(Task& task, std::shared_ptr<ControllingTerminal> terminal);
  // TIOCNOTTY. ENOTTY if it is not the session's.
  static base::Result<void> ReleaseTerminal(Task& task, ControllingTerminal& terminal);
  static bool IsControlling(Task& task, const ControllingTerminal& terminal);
  // TIOCGPGRP, TIOCGSID: of the session that the terminal controls. ENOTTY if that is not the
  // task's.
  static base::Result<int32_t> Foreground(Task& task, const ControllingTerminal& terminal);
  static base::Result<int32_t> TerminalSession(Task& task, const ControllingTerminal& terminal);
  // TIOCSPGRP. EINVAL, ESRCH, EPERM, ENOTTY; a background caller gets SIGTTOU (kRestartSys).
  static base::Result<void> SetForeground(Task& task, ControllingTerminal& terminal, int32_t pgid);
  // Before a read (SIGTTIN) or write with TOSTOP or change of settings (SIGTTOU). OK if the task
  // may go on: it is in the foreground, the terminal is not its own, or it blocks or ignores
  // SIGTTOU. Else EIO (SIGTTIN ignored or blocked, orphaned group), or kRestartSys after the signal
  // was sent.
  static base::Result<void> CheckAccess(Task& task, const ControllingTerminal& terminal,
                                        int signal);
  // From the line discipline (^C, SIGWINCH) and hang-ups: to the foreground group / the session's
  // leader, if there are any.
  static void SignalForeground(Kernel& kernel, const ControllingTerminal& terminal, int signal);
  // The other side has gone: SIGHUP and SIGCONT to the leader and the foreground group; the session
  // loses the terminal.
  static void HangUp(Kernel& kernel, ControllingTerminal& terminal);

  // --- For exit, under the tree lock.
  // True if no member has a parent in another group of the same session.
  static bool IsOrphanedLocked(const ProcessGroup& group, const ThreadGroup* leaving);
  static bool HasStoppedMemberLocked(const ProcessGroup& group);
  // `group` is about to leave (or to lose its parent `parent`): SIGHUP and SIGCONT to groups which
  // that orphans and which have stopped members.
  static void NotifyIfOrphanedLocked(ThreadGroup& group, const ThreadGroup* parent);
  // The leader of a session exits: what TIOCNOTTY would do. Takes the locks itself.
  static void OnLeaderExit(ThreadGroup& group);
};

}  // namespace sentry
