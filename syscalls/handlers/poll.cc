// poll(2) and select(2): look at all files; if none is ready, wait in the queues of all of them,
// and look again whenever one of them says something.

#include "syscalls/handlers/poll.h"

#include <poll.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "syscalls/handlers/time_values.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserInOut;
using sentry::Deadline;
using sentry::FileRef;
using sentry::PollMask;
using sentry::Task;

namespace {

struct Watched {
  FileRef file;           // Null: `ready` is the answer.
  PollMask interest = 0;  // With kPollAlways.
  PollMask ready = 0;
};

size_t LookAtAll(std::span<Watched> all) {
  size_t count = 0;
  for (Watched& watched : all) {
    if (watched.file != nullptr)
      watched.ready = watched.file->Poll(watched.interest) & watched.interest;
    if (watched.ready != 0) ++count;
  }
  return count;
}

// Number of files that are ready; 0 after the deadline. kRestartSys.
Result<size_t> WaitForAny(Task& task, std::span<Watched> all, Deadline deadline, bool can_sleep) {
  size_t ready = LookAtAll(all);
  if (ready > 0 || !can_sleep) return ready;
  task.ClearWake();
  std::deque<sentry::TaskWaiter> waiters;  // Not movable.
  for (const Watched& watched : all) {
    sentry::WaitQueue* const queue = watched.file != nullptr ? watched.file->wait_queue() : nullptr;
    if (queue != nullptr) queue->Add(waiters.emplace_back(task), watched.interest);
  }
  Result<void> woken;
  while ((ready = LookAtAll(all)) == 0) {
    woken = task.Block(deadline);
    if (woken.ok()) continue;
    ready = LookAtAll(all);
    break;
  }
  for (sentry::TaskWaiter& waiter : waiters) waiter.Detach();
  if (ready == 0 && !woken.ok() && woken.error() != ETIMEDOUT) return woken.error();
  return ready;
}

// --- poll.

class PollSet {
 public:
  // EINVAL beyond RLIMIT_NOFILE; EFAULT.
  static Result<PollSet> Make(Task& task, UserAddr address, uint32_t count) {
    if (count > task.fd_limit()) return Errno(EINVAL);
    PollSet set;
    set.address_ = address;
    set.entries_ = TRY(task.memory().CopyInArray<abi::Pollfd>(address, count));
    for (const abi::Pollfd& entry : set.entries_) {
      Watched& watched = set.watched_.emplace_back();
      watched.interest = entry.events | sentry::kPollAlways;
      if (entry.fd < 0) continue;
      const Result<FileRef> file = task.fds().GetForIo(entry.fd);
      if (file.ok()) {
        watched.file = file.value();
      } else {
        watched.ready = POLLNVAL;
      }
    }
    return set;
  }
  std::span<Watched> watched() { return watched_; }
  // Only what has changed is written: other members of the array are the guest's to change
  // meanwhile.
  Result<void> Report(Task& task) const {
    for (size_t i = 0; i < entries_.size(); ++i) {
      const auto revents = static_cast<uint16_t>(watched_[i].ready);
      if (revents == entries_[i].revents) continue;
      const uint64_t offset = i * sizeof(abi::Pollfd) + offsetof(abi::Pollfd, revents);
      TRY(task.CopyOut(base::UserOut<uint16_t>(TRY(address_.Plus(offset))), revents));
    }
    return {};
  }

 private:
  UserAddr address_;
  std::vector<abi::Pollfd> entries_;
  std::vector<Watched> watched_;
};

Result<uint64_t> PollOnce(Task& task, UserAddr fds, uint32_t count, Deadline deadline,
                          bool can_sleep) {
  PollSet set = TRY(PollSet::Make(task, fds, count));
  const size_t ready = TRY(WaitForAny(task, set.watched(), deadline, can_sleep));
  TRY(set.Report(task));
  return ready;
}

Result<uint64_t> PollRestartably(Task& task, UserAddr fds, uint32_t count, Deadline deadline,
                                 bool can_sleep) {
  const Result<uint64_t> ready = PollOnce(task, fds, count, deadline, can_sleep);
  if (ready.ok() || ready.error() != base::kRestartSys) return ready;
  return task.RestartWith([=](Task& restarted) {
    return PollRestartably(restarted, fds, count, deadline, /*can_sleep=*/true);
  });
}

// The time-out of ppoll, select and pselect: read, and written back with what is left.
struct Timeout {
  Deadline deadline = Deadline::Never();
  bool given = false;
  bool zero = false;
  bool can_sleep() const { return !zero; }
};

Timeout MakeTimeout(Task& task, int64_t ns) {
  return {DeadlineAfter(task.kernel().clock(), ns), true, ns == 0};
}

// The end of those calls: an interrupted one starts again with the time that is left, if that could
// be written.
template <typename Write>
Result<uint64_t> Finish(Task& task, const Timeout& timeout, Result<uint64_t> result,
                        Write&& write_left) {
  if (!result.ok() && result.error() != base::kRestartSys) return result;
  bool written = true;
  if (timeout.given && !timeout.zero) {
    int64_t left_ns = kNsMax;
    if (!timeout.deadline.IsNever()) {
      left_ns =
          std::max<int64_t>(timeout.deadline.monotonic_ns - task.kernel().clock().MonotonicNs(), 0);
    }
    // A time-out in memory that cannot be written is no error.
    written = write_left(left_ns).ok();
  }
  if (result.ok()) return result;
  return written ? base::kRestartNoHand : Errno(EINTR);
}

Result<void> SetMask(Task& task, UserIn<uint64_t> signal_mask, uint64_t mask_bytes) {
  if (signal_mask.is_null()) return {};
  if (mask_bytes != sizeof(uint64_t)) return Errno(EINVAL);
  task.SetTemporarySignalMask(TRY(task.CopyIn(signal_mask)));
  return {};
}

}  // namespace

Result<uint64_t> Poll(Task& task, UserAddr fds, uint32_t count, int32_t timeout_ms) {
  const Deadline deadline =
      timeout_ms < 0 ? Deadline::Never()
                     : DeadlineAfter(task.kernel().clock(), int64_t{timeout_ms} * 1'000'000);
  return PollRestartably(task, fds, count, deadline, timeout_ms != 0);
}

Result<uint64_t> Ppoll(Task& task, UserAddr fds, uint32_t count, UserInOut<abi::Timespec> timeout,
                       UserIn<uint64_t> signal_mask, uint64_t mask_bytes) {
  Timeout wait;
  if (!timeout.is_null()) wait = MakeTimeout(task, TRY(ToNs(TRY(task.CopyIn(timeout)))));
  TRY(SetMask(task, signal_mask, mask_bytes));
  return Finish(task, wait, PollOnce(task, fds, count, wait.deadline, wait.can_sleep()),
                [&](int64_t left_ns) { return task.CopyOut(timeout, ToTimespec(left_ns)); });
}

// --- select.

namespace {

constexpr PollMask kSelectIn = POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR;
constexpr PollMask kSelectOut = POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR;
constexpr PollMask kSelectExceptional = POLLPRI;
constexpr int32_t kFdsMax = 1 << 20;  // fs.nr_open

// One of the three bit sets, in whole words as the guest has them.
class BitSet {
 public:
  static Result<BitSet> Make(Task& task, UserAddr address, size_t words) {
    BitSet set;
    set.address_ = address;
    if (address.is_null()) {
      set.bits_.resize(words);
    } else {
      set.bits_ = TRY(task.memory().CopyInArray<uint64_t>(address, words));
    }
    set.result_.resize(words);
    return set;
  }
  uint64_t word(size_t index) const { return bits_[index]; }
  bool Has(size_t fd) const { return ((bits_[fd / 64] >> (fd % 64)) & 1) != 0; }
  void SetResult(size_t fd) { result_[fd / 64] |= uint64_t{1} << (fd % 64); }
  Result<void> Report(Task& task) const {
    if (address_.is_null()) return {};
    return task.memory().CopyOutArray<uint64_t>(address_, result_);
  }

 private:
  UserAddr address_;
  std::vector<uint64_t> bits_;
  std::vector<uint64_t> result_;
};

Result<uint64_t> SelectOnce(Task& task, int32_t count, const std::array<UserAddr, 3>& addresses,
                            const Timeout& timeout) {
  if (count < 0) return Errno(EINVAL);
  const size_t fds_end = static_cast<size_t>(std::min(count, kFdsMax));
  const size_t words = (fds_end + 63) / 64;
  constexpr std::array<PollMask, 3> kMasks = {kSelectIn, kSelectOut, kSelectExceptional};
  std::vector<BitSet> sets;
  for (const UserAddr address : addresses) sets.push_back(TRY(BitSet::Make(task, address, words)));

  std::vector<Watched> watched;
  std::vector<size_t> numbers;
  for (size_t index = 0; index < words; ++index) {
    uint64_t any = sets[0].word(index) | sets[1].word(index) | sets[2].word(index);
    for (; any != 0; any &= any - 1) {
      const size_t fd = index * 64 + static_cast<size_t>(std::countr_zero(any));
      if (fd >= fds_end) break;
      Watched& entry = watched.emplace_back();
      entry.file = TRY(task.fds().GetForIo(static_cast<int32_t>(fd)));
      for (size_t i = 0; i < sets.size(); ++i) {
        if (sets[i].Has(fd)) entry.interest |= kMasks[i];
      }
      numbers.push_back(fd);
    }
  }
  TRY(WaitForAny(task, watched, timeout.deadline, timeout.can_sleep()));
  uint64_t bits = 0;
  for (size_t each = 0; each < watched.size(); ++each) {
    for (size_t i = 0; i < sets.size(); ++i) {
      if (!sets[i].Has(numbers[each]) || (watched[each].ready & kMasks[i]) == 0) continue;
      sets[i].SetResult(numbers[each]);
      ++bits;
    }
  }
  for (const BitSet& set : sets) TRY(set.Report(task));
  return bits;
}

}  // namespace

Result<uint64_t> Select(Task& task, int32_t count, UserAddr in, UserAddr out, UserAddr exceptional,
                        UserInOut<abi::Timeval> timeout) {
  Timeout wait;
  if (!timeout.is_null()) {
    abi::Timeval value = TRY(task.CopyIn(timeout));
    // More than a second of microseconds is allowed here.
    if (value.tv_usec >= 1'000'000 &&
        !__builtin_add_overflow(value.tv_sec, value.tv_usec / 1'000'000, &value.tv_sec)) {
      value.tv_usec %= 1'000'000;
    }
    wait = MakeTimeout(task, TRY(ToNs(value)));
  }
  return Finish(task, wait, SelectOnce(task, count, {in, out, exceptional}, wait),
                [&](int64_t left_ns) { return task.CopyOut(timeout, ToTimeval(left_ns)); });
}

Result<uint64_t> Pselect6(Task& task, int32_t count, UserAddr in, UserAddr out,
                          UserAddr exceptional, UserInOut<abi::Timespec> timeout,
                          UserIn<abi::SignalMaskArgument> signal_mask) {
  abi::SignalMaskArgument mask;
  if (!signal_mask.is_null()) mask = TRY(task.CopyIn(signal_mask));
  Timeout wait;
  if (!timeout.is_null()) wait = MakeTimeout(task, TRY(ToNs(TRY(task.CopyIn(timeout)))));
  TRY(SetMask(task, UserIn<uint64_t>(UserAddr(mask.mask)), mask.bytes));
  return Finish(task, wait, SelectOnce(task, count, {in, out, exceptional}, wait),
                [&](int64_t left_ns) { return task.CopyOut(timeout, ToTimespec(left_ns)); });
}

}  // namespace syscalls
