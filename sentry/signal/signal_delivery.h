#pragma once

// Sending, choosing and acting on signals (signal(7); Linux kernel/signal.c). The public face is
// Task's and ThreadGroup's methods; what several files of the kernel share is here.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "platform/base/result.h"
#include "sentry/signal/signal_types.h"

namespace sentry {

class Task;
class ThreadGroup;

// A signal with a handler, to be put into a frame.
struct SignalToHandle {
  SignalInfo info;
  SignalAction action;
};

class SignalDelivery {
 public:
  // To `target`, or to the process if it is null. `force`: see ThreadGroup::SendSignal. Takes the
  // group's signal lock; the tree lock may be held.
  static base::Result<void> Send(ThreadGroup& group, Task* target, const SignalInfo& info,
                                 bool force);

  // Own thread, on the way to guest code: carries out stops and default actions, until there is a
  // handler to run or nothing is left. A fatal action has called ThreadGroup::StartExit when it
  // returns.
  static std::optional<SignalToHandle> Next(Task& task);

  // sigaction(2): sets the action and drops pending signals that are ignored now.
  static SignalAction SetAction(Task& task, int signal, const SignalAction& action);

  // Whether something waits for `task`: sets or clears its interrupt bit. Own thread.
  static void RecalculateLocked(Task& task);  // Group's signal lock held.
  // The mask changed: signals of the process that only `task` would have taken go to other threads.
  // Signal lock held.
  static void RetargetLocked(Task& task, SignalSet no_longer_taken);

  // A task joins its process / has begun to exit (its share of pending process signals goes to
  // others).
  static void AddTarget(Task& task);
  static void RemoveTarget(Task& task);

  // Ends all tasks but `survivor` (may be null). Signal lock held.
  static void KillOthersLocked(ThreadGroup& group, const Task* survivor);

  // The wait status of a process that `signal` ends by its default action.
  static int32_t FatalStatus(Task& task, int signal);

  // CLD_STOPPED or CLD_CONTINUED to the parent. No lock held.
  static void NotifyParent(ThreadGroup& group, int32_t code);

 private:
  struct Effects;
  static bool PrepareLocked(ThreadGroup& group, Task* target, int signal, bool force,
                            Effects& effects);
  static bool IsIgnoredLocked(const ThreadGroup& group, const Task* target, int signal, bool force);
  static base::Result<void> QueueLocked(ThreadGroup& group, Task* target, const SignalInfo& info);
  static void CompleteLocked(ThreadGroup& group, Task* target, int signal);
  static bool WantsLocked(const Task& task, int signal);
  static void ContinueLocked(ThreadGroup& group, Effects& effects);
  static void ClearEverywhereLocked(ThreadGroup& group, SignalSet set, Effects& effects);
  static void RunEffects(ThreadGroup& group, Effects& effects);
  static void StartStopLocked(Task& task, int signal);
  static void TakePartInStop(Task& task);
  static bool ActByDefault(Task& task, const SignalInfo& info);
};

}  // namespace sentry
