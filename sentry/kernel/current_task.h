#pragma once

// On whose behalf the calling host thread runs. For the few operations that depend on it and have
// no Task parameter: a signalfd shows the signals of whoever asks.

namespace sentry {

class Task;

// Null outside of system calls.
Task* CurrentTask();

// Set for the duration of a system call.
class CurrentTaskScope {
 public:
  explicit CurrentTaskScope(Task& task);
  ~CurrentTaskScope();
  CurrentTaskScope(const CurrentTaskScope&) = delete;
  CurrentTaskScope& operator=(const CurrentTaskScope&) = delete;
};

}  // namespace sentry
