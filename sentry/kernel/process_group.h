#pragma once

// Process groups and sessions (setpgid(2), setsid(2), credentials(7)), and what a terminal needs of
// them. The rules that relate them are in job_control.h.

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace sentry {

class ProcessGroup;
class Session;
class ThreadGroup;

// Implemented by terminals. The session holds a reference while it controls the terminal.
class ControllingTerminal {
 public:
  virtual ~ControllingTerminal() = default;
  // st_rdev, shown as tty_nr in /proc/PID/stat; /dev/tty opens it.
  virtual uint64_t device() const = 0;
  // The session gave the terminal up: by TIOCNOTTY, or because its leader exited, which hangs the
  // terminal up. Called without locks.
  virtual void OnDisassociated(bool leader_exited) = 0;
};

// All members below are guarded by the tree lock (pid_namespace.h), the ids never change.
class Session {
 public:
  explicit Session(int32_t session_id) : id(session_id) {}
  const int32_t id;
  ThreadGroup* leader = nullptr;  // Null once it has exited.
  std::shared_ptr<ControllingTerminal> terminal;
  std::weak_ptr<ProcessGroup> foreground;  // Of the terminal.
};

class ProcessGroup {
 public:
  ProcessGroup(int32_t group_id, std::shared_ptr<Session> group_session)
      : id(group_id), session(std::move(group_session)) {}
  const int32_t id;
  const std::shared_ptr<Session> session;
  std::vector<ThreadGroup*> members;
};

}  // namespace sentry
