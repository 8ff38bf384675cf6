#include "sentry/vfs/file_owner.h"

#include <signal.h>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// Whose si_code has meanings of its own (sig_specific_sicodes).
constexpr SignalSet kWithOwnCodes = kSynchronousSignals | SignalBit(SIGCHLD) | SignalBit(SIGPOLL);

struct Reason {
  PollMask mask;
  int32_t code;
  int64_t band;
};
constexpr Reason kReasons[] = {
    {POLLMSG, POLL_MSG, POLLIN | POLLRDNORM | POLLMSG},
    {POLLPRI, POLL_PRI, POLLPRI | POLLRDBAND},
    {kPollReadable, POLL_IN, POLLIN | POLLRDNORM},
    {kPollWritable, POLL_OUT, POLLOUT | POLLWRNORM | POLLWRBAND},
    {POLLERR, POLL_ERR, POLLERR},
    {POLLHUP, POLL_HUP, POLLHUP | POLLERR},
};

const Reason* ReasonFor(PollMask mask) {
  for (const Reason& reason : kReasons) {
    if ((reason.mask & mask) != 0) return &reason;
  }
  return nullptr;
}

}  // namespace

Result<void> FileOwner::Set(Task& caller, Id id) {
  PidNamespace& pids = caller.kernel().pids();
  Target target;
  target.id = id;
  target.pids = &pids;
  target.sender = {caller.own_credentials().uid, caller.own_credentials().euid};
  if (id.number != 0) {
    switch (id.kind) {
      case Kind::kThread: {
        const TaskRef thread = pids.FindTask(id.number);
        if (thread == nullptr) return Errno(ESRCH);
        target.thread = thread;
        break;
      }
      case Kind::kProcess: {
        const TaskRef thread = pids.FindTask(id.number);
        if (thread == nullptr) return Errno(ESRCH);
        target.process = thread->group_ref();
        break;
      }
      case Kind::kGroup:
        if (pids.FindProcessGroup(id.number) == nullptr) return Errno(ESRCH);
        break;
    }
  }
  const absl::MutexLock lock(&mu_);
  target_ = std::move(target);
  return {};
}

FileOwner::Id FileOwner::Get() const {
  const absl::MutexLock lock(&mu_);
  return target_.id;
}

void FileOwner::SetSignal(int32_t signal) {
  const absl::MutexLock lock(&mu_);
  signal_ = signal;
}

int32_t FileOwner::signal() const {
  const absl::MutexLock lock(&mu_);
  return signal_;
}

void FileOwner::Arm(Task&, File& file, int32_t fd) {
  Detach();
  {
    const absl::MutexLock lock(&mu_);
    fd_ = fd;
    file_ = file.weak_from_this();
  }
  PollMask interest = 0;
  if (file.readable()) interest |= kPollReadable | POLLPRI;
  if (file.writable()) interest |= kPollWritable;
  if (WaitQueue* queue = file.wait_queue()) queue->Add(*this, interest);
}

void FileOwner::Send(Task& task, bool to_thread, const Sender& sender, int32_t signal, int32_t fd,
                     PollMask mask) {
  const CredentialsRef theirs = task.credentials();
  const bool allowed = sender.euid == 0 || sender.euid == theirs->suid ||
                       sender.euid == theirs->uid || sender.uid == theirs->suid ||
                       sender.uid == theirs->uid;
  const Reason* reason = ReasonFor(mask);
  if (!allowed || reason == nullptr) return;
  const auto send = [&](const SignalInfo& info) {
    return to_thread ? task.SendSignal(info) : task.SendSignalToGroup(info);
  };
  if (signal != 0) {
    SignalInfo info;
    info.signal = signal;
    const bool own_codes = signal != SIGPOLL && (SignalBit(signal) & kWithOwnCodes) != 0;
    info.code = own_codes ? SI_SIGIO : reason->code;
    info.band = reason->band;
    info.fd = fd;
    if (send(info).ok()) return;
    // The queue is full: SIGIO says that something was lost.
  }
  (void)send(SignalInfo::FromKernel(SIGIO));  // A standard signal is not refused.
}

bool FileOwner::OnEvent(PollMask mask) {
  Target target;
  int32_t signal = 0, fd = -1;
  {
    const absl::MutexLock lock(&mu_);
    if (file_.expired()) return false;
    target = target_;
    signal = signal_;
    fd = fd_;
  }
  SendTo(target, signal, fd, mask);
  return false;
}

void FileOwner::Tell(int32_t fd) {
  Target target;
  int32_t signal = 0;
  {
    const absl::MutexLock lock(&mu_);
    target = target_;
    signal = signal_;
  }
  SendTo(target, signal, fd, POLLMSG);
}

void FileOwner::SendTo(const Target& target, int32_t signal, int32_t fd, PollMask mask) {
  if (target.id.number == 0) return;
  if (target.id.kind == Kind::kGroup) {
    for (const auto& member : target.pids->Members(target.id.number)) {
      if (const TaskRef task = member->AnyLiveTask())
        Send(*task, false, target.sender, signal, fd, mask);
    }
    return;
  }
  if (target.id.kind == Kind::kThread) {
    const TaskRef thread = target.thread.lock();
    if (thread != nullptr && !thread->HasExited())
      Send(*thread, true, target.sender, signal, fd, mask);
    return;
  }
  const std::shared_ptr<ThreadGroup> process = target.process.lock();
  const TaskRef task = process != nullptr ? process->AnyLiveTask() : nullptr;
  if (task != nullptr) Send(*task, false, target.sender, signal, fd, mask);
}

}  // namespace sentry
