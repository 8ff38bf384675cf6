#include "sentry/ipc/semaphores.h"

#include <sys/ipc.h>
#include <sys/sem.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr size_t kListedMax = 64;

}  // namespace

class SemSet {
 public:
  struct Semaphore {
    int32_t value = 0;
    int32_t pid = 0;
  };
  IpcPermissions permissions;
  int64_t operation_s = 0, change_s = 0;
  bool removed = false;
  std::vector<Semaphore> semaphores;
  std::vector<const SemRegistry::Sleeper*> sleepers;
  // To be added to the values when the list is applied.
  std::map<const SemUndoList*, std::vector<int16_t>> undo;
  WaitQueue queue;
};

WaitQueue& SemRegistry::QueueOf(SemSet& set) { return set.queue; }

int64_t SemRegistry::NowSeconds() const { return clock_.RealtimeNs() / 1'000'000'000; }

Result<int32_t> SemRegistry::Get(int32_t key, int32_t count, int32_t flags,
                                 const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  if (count < 0 || static_cast<uint32_t>(count) > limits_.set_size_max) return Errno(EINVAL);
  const auto wanted = static_cast<size_t>(count);
  const auto fits = [wanted](const SemSet& set) -> Result<void> {
    if (wanted > set.semaphores.size()) return Errno(EINVAL);
    return {};
  };
  return GetIpcObject(table_, key, flags, who, fits, [&]() -> Result<int32_t> {
    mu_.AssertHeld();
    if (wanted == 0) return Errno(EINVAL);
    const uint64_t most = std::min<uint64_t>(limits_.semaphores_max, kTotalMax);
    if (semaphores_ + wanted > most) return Errno(ENOSPC);
    auto set = std::make_shared<SemSet>();
    set->permissions = NewIpcPermissions(key, flags, who);
    set->change_s = NowSeconds();
    set->semaphores.resize(wanted);
    const int32_t id = TRY(table_.Insert(std::move(set), limits_.sets_max));
    semaphores_ += wanted;
    return id;
  });
}

Result<std::shared_ptr<SemSet>> SemRegistry::Find(int32_t id) const {
  const absl::MutexLock lock(&mu_);
  return table_.Find(id);
}

// The row of `list` in the set; made if there is none.
Result<std::vector<int16_t>*> SemRegistry::UndoFor(SemSet& set, SemUndoList& list) {
  const auto it = set.undo.find(&list);
  if (it != set.undo.end()) return &it->second;
  const uint64_t count = set.semaphores.size();
  if (undos_ + count > kUndoMax) return Errno(ENOMEM);
  undos_ += count;
  const std::shared_ptr<SemSet> reference = TRY(table_.Find(set.permissions.id));
  // Sets that have been removed stay listed until there are many.
  if (list.sets_.size() >= kListedMax)
    std::erase_if(list.sets_, [](const auto& entry) { return entry.second.expired(); });
  list.sets_.insert_or_assign(&set, reference);
  return &set.undo.emplace(&list, std::vector<int16_t>(count)).first->second;
}

// All or nothing: what was done is taken back where one does not go.
Result<void> SemRegistry::TryLocked(SemSet& set, std::span<const SemOperation> operations,
                                    std::vector<int16_t>* undo, Sleeper& sleeper) {
  size_t done = 0;
  int failure = 0;
  for (; done < operations.size(); ++done) {
    const SemOperation& operation = operations[done];
    int32_t& value = set.semaphores[operation.number].value;
    const bool has_undo = (operation.flags & SEM_UNDO) != 0;
    const int32_t result = value + operation.change;
    if ((operation.change == 0 && value != 0) || result < 0) {
      sleeper.number = operation.number;
      sleeper.for_zero = operation.change == 0;
      failure = (operation.flags & IPC_NOWAIT) != 0 ? EWOULDBLOCK : EINPROGRESS;
      break;
    }
    if (result > kValueMax) {
      failure = ERANGE;
      break;
    }
    if (has_undo) {
      int16_t& adjust = (*undo)[operation.number];
      const int32_t sum = adjust - operation.change;
      if (sum < -kValueMax - 1 || sum > kValueMax) {
        failure = ERANGE;
        break;
      }
      adjust = static_cast<int16_t>(sum);
    }
    value = result;
  }
  if (failure == 0) return {};
  while (done-- > 0) {
    const SemOperation& operation = operations[done];
    set.semaphores[operation.number].value -= operation.change;
    if ((operation.flags & SEM_UNDO) != 0)
      (*undo)[operation.number] =
          static_cast<int16_t>((*undo)[operation.number] + operation.change);
  }
  return Errno(failure);
}

Result<void> SemRegistry::Operate(SemSet& set, std::span<const SemOperation> operations,
                                  const Caller& caller, Sleeper& sleeper) {
  if (caller.undo != nullptr) {
    const absl::MutexLock lock(&caller.undo->mu_);
    if (caller.undo->registry_ == nullptr) caller.undo->registry_ = shared_from_this();
  }
  const absl::MutexLock lock(&mu_);
  if (set.removed) return Errno(EIDRM);
  bool alters = false;
  for (const SemOperation& operation : operations) {
    if (operation.number >= set.semaphores.size()) return Errno(EFBIG);
    alters = alters || operation.change != 0;
  }
  TRY(CheckIpcAccess(set.permissions, caller.who, alters ? kIpcWrite : kIpcRead));
  std::vector<int16_t>* undo = caller.undo != nullptr ? TRY(UndoFor(set, *caller.undo)) : nullptr;
  const Result<void> result = TryLocked(set, operations, undo, sleeper);
  if (!result.ok()) {
    // The handler tells "do not wait" from "wait" by the registration.
    if (result.error() == EINPROGRESS) {
      if (!std::exchange(sleeper.registered, true)) set.sleepers.push_back(&sleeper);
      return Errno(EAGAIN);
    }
    return result.error();
  }
  for (const SemOperation& operation : operations)
    set.semaphores[operation.number].pid = caller.pid;
  set.operation_s = NowSeconds();
  if (alters) set.queue.Notify(POLLIN);
  return {};
}

void SemRegistry::Leave(SemSet& set, Sleeper& sleeper) {
  const absl::MutexLock lock(&mu_);
  if (std::exchange(sleeper.registered, false)) std::erase(set.sleepers, &sleeper);
}

SemStatus SemRegistry::StatusOf(const SemSet& set) {
  return {set.permissions, set.operation_s, set.change_s, set.semaphores.size()};
}

Result<std::shared_ptr<SemSet>> SemRegistry::FindFor(int32_t id, uint32_t access,
                                                     const Credentials& who) {
  const std::shared_ptr<SemSet> set = TRY(table_.Find(id));
  TRY(CheckIpcAccess(set->permissions, who, access));
  return set;
}

Result<SemStatus> SemRegistry::Status(int32_t id, bool by_index, bool any, const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<SemSet> set = by_index ? TRY(table_.FindIndex(id)) : TRY(table_.Find(id));
  if (!any) TRY(CheckIpcAccess(set->permissions, who, kIpcRead));
  return StatusOf(*set);
}

Result<void> SemRegistry::SetOwner(int32_t id, const IpcOwnerChange& change,
                                   const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<SemSet> set = TRY(table_.Find(id));
  TRY(CheckIpcOwner(set->permissions, who));
  TRY(ApplyIpcOwner(set->permissions, change));
  set->change_s = NowSeconds();
  return {};
}

Result<void> SemRegistry::Remove(int32_t id, const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<SemSet> set = TRY(table_.Find(id));
  TRY(CheckIpcOwner(set->permissions, who));
  table_.Remove(*set);
  set->removed = true;
  semaphores_ -= set->semaphores.size();
  undos_ -= set->undo.size() * set->semaphores.size();
  set->undo.clear();
  set->queue.Notify(POLLIN);
  return {};
}

Result<int32_t> SemRegistry::Ask(int32_t id, int32_t number, Query query, const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<SemSet> set = TRY(FindFor(id, kIpcRead, who));
  if (number < 0 || static_cast<size_t>(number) >= set->semaphores.size()) return Errno(EINVAL);
  const SemSet::Semaphore& semaphore = set->semaphores[static_cast<size_t>(number)];
  if (query == Query::kValue) return semaphore.value;
  if (query == Query::kPid) return semaphore.pid;
  const bool for_zero = query == Query::kZeroWaiters;
  return static_cast<int32_t>(
      std::count_if(set->sleepers.begin(), set->sleepers.end(), [&](const Sleeper* sleeper) {
        return sleeper->number == number && sleeper->for_zero == for_zero;
      }));
}

Result<std::vector<uint16_t>> SemRegistry::Values(int32_t id, const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<SemSet> set = TRY(FindFor(id, kIpcRead, who));
  std::vector<uint16_t> values;
  values.reserve(set->semaphores.size());
  for (const SemSet::Semaphore& semaphore : set->semaphores)
    values.push_back(static_cast<uint16_t>(semaphore.value));
  return values;
}

void SemRegistry::ForgetUndo(SemSet& set, int32_t number) {
  for (auto& [list, changes] : set.undo) {
    if (number < 0) {
      std::fill(changes.begin(), changes.end(), int16_t{0});
    } else {
      changes[static_cast<size_t>(number)] = 0;
    }
  }
}

Result<void> SemRegistry::SetValue(int32_t id, int32_t number, int32_t value,
                                   const Credentials& who, int32_t pid) {
  if (value < 0 || value > kValueMax) return Errno(ERANGE);
  const absl::MutexLock lock(&mu_);
  const std::shared_ptr<SemSet> set = TRY(table_.Find(id));
  if (number < 0 || static_cast<size_t>(number) >= set->semaphores.size()) return Errno(EINVAL);
  TRY(CheckIpcAccess(set->permissions, who, kIpcWrite));
  ForgetUndo(*set, number);
  set->semaphores[static_cast<size_t>(number)] = {value, pid};
  set->change_s = NowSeconds();
  set->queue.Notify(POLLIN);
  return {};
}

Result<size_t> SemRegistry::CountToSet(int32_t id, const Credentials& who) {
  const absl::MutexLock lock(&mu_);
  return TRY(FindFor(id, kIpcWrite, who))->semaphores.size();
}

Result<void> SemRegistry::SetValues(int32_t id, std::span<const uint16_t> values,
                                    const Credentials& who, int32_t pid) {
  for (const uint16_t value : values) {
    if (value > kValueMax) return Errno(ERANGE);
  }
  const absl::MutexLock lock(&mu_);
  const Result<std::shared_ptr<SemSet>> found = FindFor(id, kIpcWrite, who);
  if (!found.ok()) return found.error() == EINVAL ? Errno(EIDRM) : found.error();
  SemSet& set = *found.value();
  // Gone and made anew while the values were read.
  if (set.semaphores.size() != values.size()) return Errno(EIDRM);
  ForgetUndo(set, -1);
  for (size_t i = 0; i < values.size(); ++i) set.semaphores[i] = {values[i], pid};
  set.change_s = NowSeconds();
  set.queue.Notify(POLLIN);
  return {};
}

// exit_sem in Linux: what does not go is cut off at the limits.
void SemRegistry::ApplyUndo(SemUndoList& list, int32_t pid) {
  const absl::MutexLock lock(&mu_);
  for (const auto& [address, weak] : std::exchange(list.sets_, {})) {
    const std::shared_ptr<SemSet> set = weak.lock();
    if (set == nullptr || set->removed) continue;
    const auto row = set->undo.extract(&list);
    if (row.empty()) continue;
    undos_ -= set->semaphores.size();
    for (size_t i = 0; i < set->semaphores.size(); ++i) {
      const int16_t change = row.mapped()[i];
      if (change == 0) continue;
      SemSet::Semaphore& semaphore = set->semaphores[i];
      semaphore.value = std::clamp(semaphore.value + change, 0, kValueMax);
      semaphore.pid = pid;
    }
    set->operation_s = NowSeconds();
    set->queue.Notify(POLLIN);
  }
}

void SemUndoList::Apply(int32_t pid) {
  std::shared_ptr<SemRegistry> registry;
  {
    const absl::MutexLock lock(&mu_);
    registry = registry_;
  }
  if (registry != nullptr) registry->ApplyUndo(*this, pid);
}

SemTotals SemRegistry::Totals() const {
  const absl::MutexLock lock(&mu_);
  return {static_cast<int32_t>(table_.size()), std::max(table_.MaxIndex(), 0), semaphores_};
}

std::vector<SemStatus> SemRegistry::All() const {
  const absl::MutexLock lock(&mu_);
  std::vector<SemStatus> all;
  all.reserve(table_.size());
  for (const auto& [index, set] : table_.objects()) all.push_back(StatusOf(*set));
  return all;
}

SemLimits SemRegistry::limits() const {
  const absl::MutexLock lock(&mu_);
  return limits_;
}

void SemRegistry::set_limits(const SemLimits& limits) {
  const absl::MutexLock lock(&mu_);
  limits_ = limits;
}

int32_t SemRegistry::next_id() const {
  const absl::MutexLock lock(&mu_);
  return table_.next_id();
}

void SemRegistry::set_next_id(int32_t id) {
  const absl::MutexLock lock(&mu_);
  table_.set_next_id(id);
}

}  // namespace sentry
