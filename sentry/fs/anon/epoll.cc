#include "sentry/fs/anon/epoll.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {
// What is not an event but says how to report.
constexpr uint32_t kModeBits = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;
}  // namespace

class EpollFile::Entry : public Waiter {
 public:
  Entry(EpollFile& epoll, const FileRef& watched, int32_t watched_fd)
      : file(watched), key{watched.get(), watched_fd}, epoll_(epoll) {}
  ~Entry() override {
    Detach();
    epoll_.anonymous_files_.RemoveEpollWatch();
  }

  bool OnEvent(PollMask mask) override {
    if ((events.load(std::memory_order_relaxed) & mask) == 0) return false;
    // An exclusive event goes on to the next one if nobody waits here, or the file is gone for us.
    if (file.expired()) return false;
    const bool woke = epoll_.MakeReady(*this);
    return woke || (events.load(std::memory_order_relaxed) & EPOLLEXCLUSIVE) == 0;
  }

  const std::weak_ptr<File> file;
  const Key key;
  std::atomic<uint32_t> events{
      0};             // With mode bits. 0 apart from those: reported once (EPOLLONESHOT).
  uint64_t data = 0;  // Guarded by the epoll's mu_.
  EpollFile* nested =
      nullptr;          // The file, if it is an epoll description. Compared under the nesting lock.
  bool listed = false;  // Guarded by ready_mu_, as is position.
  EntryList::iterator position;

 private:
  EpollFile& epoll_;
};

EpollFile::EpollFile(Task& task)
    : AnonymousFile(task, "[eventpoll]", O_RDWR),
      anonymous_files_(task.kernel().anonymous_files()) {}

EpollFile::~EpollFile() {
  {
    const absl::MutexLock lock(&anonymous_files_.epoll_nesting_mu());
    for (EpollFile* outer : outer_) std::erase(outer->inner_, this);
    for (EpollFile* inner : inner_) {
      const auto found = std::find(inner->outer_.begin(), inner->outer_.end(), this);
      if (found != inner->outer_.end()) inner->outer_.erase(found);
    }
  }
  const absl::MutexLock lock(&mu_);
  entries_.clear();
}

// --- Nesting.

int EpollFile::Height(const EpollFile& file) {
  int height = 0;
  for (const EpollFile* inner : file.inner_) height = std::max(height, Height(*inner));
  return height + 1;
}

int EpollFile::Depth(const EpollFile& file) {
  int depth = 0;
  for (const EpollFile* outer : file.outer_) depth = std::max(depth, Depth(*outer));
  return depth + 1;
}

// No chain gets longer than the limit, so these recursions are bounded and a chain cannot close.
Result<void> EpollFile::Nest(EpollFile& inner) {
  const absl::MutexLock lock(&anonymous_files_.epoll_nesting_mu());
  const auto contains = [](const auto& self, const EpollFile& in, const EpollFile* wanted) -> bool {
    if (&in == wanted) return true;
    return std::any_of(in.inner_.begin(), in.inner_.end(),
                       [&](const EpollFile* each) { return self(self, *each, wanted); });
  };
  if (contains(contains, inner, this)) return Errno(ELOOP);
  if (Depth(*this) + Height(inner) > kNestingMax) return Errno(ELOOP);
  inner_.push_back(&inner);
  inner.outer_.push_back(this);
  return {};
}

void EpollFile::Unnest(EpollFile& inner) {
  const absl::MutexLock lock(&anonymous_files_.epoll_nesting_mu());
  const auto found = std::find(inner_.begin(), inner_.end(), &inner);
  // Gone already if `inner` is being destroyed: then it must not be touched.
  if (found == inner_.end()) return;
  inner_.erase(found);
  inner.outer_.erase(std::find(inner.outer_.begin(), inner.outer_.end(), this));
  inner.mu_.ForgetDeadlockInfo();
  inner.poll_queue_.ForgetLockOrder();
}

// --- The ready list.

bool EpollFile::MakeReady(Entry& entry) {
  {
    const absl::MutexLock lock(&ready_mu_);
    if (!entry.listed) {
      entry.position = ready_.insert(ready_.end(), &entry);
      entry.listed = true;
    }
  }
  const bool woke = waiters_.Notify(kPollReadable);
  const bool told = poll_queue_.Notify(kPollReadable);
  return woke || told;
}

void EpollFile::Unlist(Entry& entry) {
  const absl::MutexLock lock(&ready_mu_);
  if (!entry.listed) return;
  entry.listed = false;
  ready_.erase(entry.position);
}

bool EpollFile::MaybeReady() {
  const absl::MutexLock lock(&ready_mu_);
  return !ready_.empty();
}

PollMask EpollFile::Ask(Entry& entry, File& file) {
  const uint32_t wanted = entry.events.load(std::memory_order_relaxed) & ~kModeBits;
  if (wanted == 0) return 0;
  return file.Poll(wanted) & wanted;
}

void EpollFile::Erase(const Key& key) {
  const auto found = entries_.find(key);
  std::unique_ptr<Entry> entry = std::move(found->second);
  entries_.erase(found);
  entry->Detach();
  Unlist(*entry);
  if (entry->nested != nullptr) Unnest(*entry->nested);
}

void EpollFile::SweepIfLarge() {
  if (entries_.size() < sweep_at_) return;
  std::vector<Key> expired;
  for (const auto& [key, entry] : entries_) {
    if (entry->file.expired()) expired.push_back(key);
  }
  for (const Key& key : expired) Erase(key);
  sweep_at_ = std::max<size_t>(64, entries_.size() * 2);
}

// --- epoll_ctl.

Result<void> EpollFile::Add(const FileRef& file, int32_t fd, const EpollEvent& event) {
  WaitQueue* const queue = file->wait_queue();
  if (queue == nullptr) return Errno(EPERM);
  const Key key{file.get(), fd};
  const absl::MutexLock lock(&mu_);
  SweepIfLarge();
  const auto found = entries_.find(key);
  if (found != entries_.end()) {
    if (!found->second->file.expired()) return Errno(EEXIST);
    Erase(key);
  }
  TRY(anonymous_files_.AddEpollWatch());
  auto entry = std::make_unique<Entry>(*this, file, fd);
  entry->nested = dynamic_cast<EpollFile*>(file.get());
  if (entry->nested != nullptr) TRY(Nest(*entry->nested));
  entry->events.store(event.events | kPollAlways, std::memory_order_relaxed);
  entry->data = event.data;
  Entry& added = *entry;
  entries_.emplace(key, std::move(entry));
  queue->Add(added, event.events & ~kModeBits, (event.events & EPOLLEXCLUSIVE) != 0);
  if (Ask(added, *file) != 0) MakeReady(added);
  return {};
}

Result<void> EpollFile::Modify(const FileRef& file, int32_t fd, const EpollEvent& event) {
  if (file->wait_queue() == nullptr) return Errno(EPERM);
  const absl::MutexLock lock(&mu_);
  const auto found = entries_.find({file.get(), fd});
  if (found == entries_.end() || found->second->file.expired()) return Errno(ENOENT);
  Entry& entry = *found->second;
  if ((entry.events.load(std::memory_order_relaxed) & EPOLLEXCLUSIVE) != 0) return Errno(EINVAL);
  entry.Detach();
  entry.events.store(event.events | kPollAlways, std::memory_order_relaxed);
  entry.data = event.data;
  file->wait_queue()->Add(entry, event.events & ~kModeBits);
  if (Ask(entry, *file) != 0) MakeReady(entry);
  return {};
}

Result<void> EpollFile::Delete(const FileRef& file, int32_t fd) {
  if (file->wait_queue() == nullptr) return Errno(EPERM);
  const Key key{file.get(), fd};
  const absl::MutexLock lock(&mu_);
  const auto found = entries_.find(key);
  if (found == entries_.end() || found->second->file.expired()) return Errno(ENOENT);
  Erase(key);
  return {};
}

// --- epoll_wait.

Result<size_t> EpollFile::Collect(size_t count, const Deliver& deliver) {
  bool more = false;
  size_t delivered = 0;
  std::vector<FileRef> asked;  // Released after mu_: one of these may be the last reference.
  {
    const absl::MutexLock lock(&mu_);
    // Each listed entry is looked at once. It is unlisted first, so that an event during the look
    // lists it again.
    EntryList listed;
    {
      const absl::MutexLock ready_lock(&ready_mu_);
      listed.swap(ready_);
    }
    std::vector<EpollEvent> events;
    std::vector<Entry*> reported;
    while (!listed.empty() && events.size() < count) {
      Entry& entry = *listed.front();
      {
        const absl::MutexLock ready_lock(&ready_mu_);
        listed.pop_front();
        entry.listed = false;
      }
      const FileRef file = entry.file.lock();
      if (file == nullptr) {
        Erase(entry.key);
        continue;
      }
      asked.push_back(file);
      const PollMask mask = Ask(entry, *file);
      if (mask == 0) continue;
      events.push_back({mask, entry.data});
      reported.push_back(&entry);
    }
    const Result<void> result = events.empty() ? Result<void>() : deliver(events);
    for (Entry* entry : reported) {
      const uint32_t mode = entry->events.load(std::memory_order_relaxed);
      if (result.ok() && (mode & EPOLLONESHOT) != 0) {
        entry->events.store(mode & kModeBits, std::memory_order_relaxed);
      } else if (!result.ok() || (mode & EPOLLET) == 0) {
        const absl::MutexLock ready_lock(&ready_mu_);
        if (entry->listed) continue;
        entry->position = ready_.insert(ready_.end(), entry);
        entry->listed = true;
      }
    }
    {
      // Those that did not get their turn come first next time.
      const absl::MutexLock ready_lock(&ready_mu_);
      ready_.splice(ready_.begin(), listed);
      more = !ready_.empty();
    }
    if (!result.ok()) return result.error();
    delivered = events.size();
  }
  if (more && delivered > 0) waiters_.Notify(kPollReadable);
  if (delivered == 0) return Errno(EAGAIN);
  return delivered;
}

PollMask EpollFile::Poll(PollMask interest) {
  (void)interest;
  std::vector<FileRef> asked;  // Released after mu_.
  const absl::MutexLock lock(&mu_);
  while (true) {
    Entry* entry = nullptr;
    {
      // Taken off before it is asked: an event from here on lists it again.
      const absl::MutexLock ready_lock(&ready_mu_);
      if (ready_.empty()) return 0;
      entry = ready_.front();
      ready_.pop_front();
      entry->listed = false;
    }
    asked.push_back(entry->file.lock());
    if (asked.back() == nullptr || Ask(*entry, *asked.back()) == 0) continue;
    const absl::MutexLock ready_lock(&ready_mu_);
    if (!entry->listed) {
      entry->position = ready_.insert(ready_.begin(), entry);
      entry->listed = true;
    }
    return kPollReadable;
  }
}

std::string EpollFile::FdInfo() const {
  std::vector<FileRef> asked;  // Released after mu_.
  const absl::MutexLock lock(&mu_);
  std::string text;
  for (const auto& [key, entry] : entries_) {
    const FileRef& file = asked.emplace_back(entry->file.lock());
    if (file == nullptr) continue;
    const Result<Attributes> attributes = file->GetAttributes();
    char line[160];
    std::snprintf(line, sizeof(line),
                  "tfd: %8d events: %8x data: %16" PRIx64 "  pos:%" PRIi64 " ino:%" PRIx64
                  " sdev:%" PRIx64 "\n",
                  key.fd, entry->events.load(std::memory_order_relaxed), entry->data, int64_t{0},
                  attributes.ok() ? attributes.value().inode : 0,
                  attributes.ok() ? attributes.value().device : 0);
    text += line;
  }
  return text;
}

}  // namespace sentry
