// An instance is a queue of events and a set of watches. Events arrive from within operations of
// the vfs, which may hold locks of directories: there an event is only queued, and a watch that
// ends is put aside, to be freed (with the names and inodes that it holds) by the next call of the
// reader's own.

#include "sentry/fs/anon/inotify.h"

#include <asm/ioctls.h>
#include <fcntl.h>
#include <sys/inotify.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/notify.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

struct Event {
  int32_t descriptor = -1;
  uint32_t mask = 0;
  uint32_t cookie = 0;
  std::string name;

  // The name is padded with NULs, at least one, to a multiple of the header.
  size_t name_bytes() const {
    constexpr size_t kUnit = sizeof(inotify_event);
    return name.empty() ? 0 : (name.size() + kUnit) / kUnit * kUnit;
  }
  size_t bytes() const { return sizeof(inotify_event) + name_bytes(); }
};

}  // namespace

class InotifyQueue : public std::enable_shared_from_this<InotifyQueue> {
 public:
  InotifyQueue(AnonymousFiles& limits, uint32_t uid) : limits_(limits), uid_(uid) {}

  Result<int32_t> AddWatch(const Path& path, uint32_t mask) ABSL_LOCKS_EXCLUDED(mu_);
  Result<void> RemoveWatch(int32_t descriptor) ABSL_LOCKS_EXCLUDED(mu_);
  void Close() ABSL_LOCKS_EXCLUDED(mu_);
  Result<size_t> Read(IoBuffer& to) ABSL_LOCKS_EXCLUDED(mu_);
  size_t bytes() const ABSL_LOCKS_EXCLUDED(mu_);
  bool empty() const ABSL_LOCKS_EXCLUDED(mu_);
  std::string FdInfo() const ABSL_LOCKS_EXCLUDED(mu_);
  WaitQueue& readers() { return readers_; }

 private:
  // One watched inode.
  struct Mark : public Watch {
    Mark(std::shared_ptr<InotifyQueue> owner, Path watched, int32_t number)
        : queue(std::move(owner)),
          path(std::move(watched)),
          inode(path.dentry->inode()),
          descriptor(number) {}
    void OnEvent(uint32_t event, std::string_view name, uint32_t cookie) override {
      queue->OnEvent(*this, event, name, cookie);
    }
    const std::shared_ptr<InotifyQueue> queue;
    const Path path;
    const InodeRef inode;
    const int32_t descriptor;
    uint32_t mask = 0;  // Guarded by the queue's mu_.
  };
  using MarkRef = std::shared_ptr<Mark>;

  void OnEvent(Mark& mark, uint32_t event, std::string_view name, uint32_t cookie)
      ABSL_LOCKS_EXCLUDED(mu_);
  void PushLocked(Event event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes the mark out of the tables; the caller unhooks it from its inode without mu_.
  MarkRef TakeLocked(int32_t descriptor) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<MarkRef> TakeEnded() ABSL_LOCKS_EXCLUDED(mu_);

  AnonymousFiles& limits_;
  const uint32_t uid_;
  WaitQueue readers_;
  mutable absl::Mutex mu_;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<Event> events_ ABSL_GUARDED_BY(mu_);
  std::map<int32_t, MarkRef> marks_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<const Inode*, int32_t> by_inode_ ABSL_GUARDED_BY(mu_);
  std::vector<MarkRef> ended_ ABSL_GUARDED_BY(mu_);
  int32_t next_descriptor_ ABSL_GUARDED_BY(mu_) = 1;
};

Result<int32_t> InotifyQueue::AddWatch(const Path& path, uint32_t mask) {
  TakeEnded();
  const uint32_t kept = mask & (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK);
  MarkRef mark;
  {
    const absl::MutexLock lock(&mu_);
    const auto found = by_inode_.find(path.dentry->inode().get());
    if (found != by_inode_.end()) {
      if ((mask & IN_MASK_CREATE) != 0) return Errno(EEXIST);
      uint32_t& present = marks_[found->second]->mask;
      present = (mask & IN_MASK_ADD) != 0 ? present | kept : kept;
      return found->second;
    }
    TRY(limits_.AddInotifyWatch(uid_));
    mark = std::make_shared<Mark>(shared_from_this(), path, next_descriptor_++);
    mark->mask = kept;
    marks_.emplace(mark->descriptor, mark);
    by_inode_.emplace(mark->inode.get(), mark->descriptor);
  }
  sentry::AddWatch(*mark->inode, mark);
  return mark->descriptor;
}

InotifyQueue::MarkRef InotifyQueue::TakeLocked(int32_t descriptor) {
  const auto found = marks_.find(descriptor);
  if (found == marks_.end()) return nullptr;
  MarkRef mark = std::move(found->second);
  marks_.erase(found);
  by_inode_.erase(mark->inode.get());
  limits_.RemoveInotifyWatch(uid_);
  return mark;
}

Result<void> InotifyQueue::RemoveWatch(int32_t descriptor) {
  TakeEnded();
  MarkRef mark;
  {
    const absl::MutexLock lock(&mu_);
    mark = TakeLocked(descriptor);
    if (mark == nullptr) return Errno(EINVAL);
    PushLocked({descriptor, IN_IGNORED, 0, {}});
  }
  sentry::RemoveWatch(*mark->inode, *mark);
  readers_.Notify(kPollReadable);
  return {};
}

void InotifyQueue::Close() {
  std::vector<MarkRef> marks;
  {
    const absl::MutexLock lock(&mu_);
    closed_ = true;
    events_.clear();
    while (!marks_.empty()) marks.push_back(TakeLocked(marks_.begin()->first));
  }
  for (const MarkRef& mark : marks) sentry::RemoveWatch(*mark->inode, *mark);
  TakeEnded();
}

std::vector<InotifyQueue::MarkRef> InotifyQueue::TakeEnded() {
  std::vector<MarkRef> ended;
  const absl::MutexLock lock(&mu_);
  ended.swap(ended_);
  return ended;  // Freed by the caller, without mu_.
}

void InotifyQueue::PushLocked(Event event) {
  if (closed_) return;
  if (!events_.empty()) {
    const Event& last = events_.back();
    // Two in a row that say the same are one.
    if (last.descriptor == event.descriptor && last.mask == event.mask && last.name == event.name &&
        (last.mask & IN_IGNORED) == 0) {
      return;
    }
  }
  if (events_.size() >= InotifyFile::kEventsMax) {
    if ((events_.back().mask & IN_Q_OVERFLOW) == 0) events_.push_back({-1, IN_Q_OVERFLOW, 0, {}});
    return;
  }
  events_.push_back(std::move(event));
}

void InotifyQueue::OnEvent(Mark& mark, uint32_t event, std::string_view name, uint32_t cookie) {
  const bool last = (event & (IN_DELETE_SELF | IN_UNMOUNT)) != 0 && name.empty();
  MarkRef ended;
  {
    const absl::MutexLock lock(&mu_);
    if (!marks_.contains(mark.descriptor)) return;
    const bool wanted = (event & (mark.mask | IN_UNMOUNT) & (IN_ALL_EVENTS | IN_UNMOUNT)) != 0;
    if (wanted) PushLocked({mark.descriptor, event, cookie, std::string(name)});
    if (last || (wanted && (mark.mask & IN_ONESHOT) != 0)) {
      ended = TakeLocked(mark.descriptor);
      PushLocked({mark.descriptor, IN_IGNORED, 0, {}});
      ended_.push_back(ended);
    } else if (!wanted) {
      return;
    }
  }
  if (ended != nullptr) sentry::RemoveWatch(*ended->inode, *ended);
  readers_.Notify(kPollReadable);
}

Result<size_t> InotifyQueue::Read(IoBuffer& to) {
  TakeEnded();
  size_t total = 0;
  while (true) {
    Event event;
    {
      const absl::MutexLock lock(&mu_);
      if (events_.empty()) break;
      if (events_.front().bytes() > to.remaining()) {
        if (total == 0) return Errno(EINVAL);
        break;
      }
      event = std::move(events_.front());
      events_.pop_front();
    }
    std::vector<std::byte> record(event.bytes());
    const inotify_event header{event.descriptor, event.mask, event.cookie,
                               static_cast<uint32_t>(event.name_bytes())};
    std::memcpy(record.data(), &header, sizeof(header));
    std::memcpy(record.data() + sizeof(header), event.name.data(), event.name.size());
    const Result<size_t> copied = to.CopyOut(record);
    if (!copied.ok() || copied.value() < record.size()) {
      if (total == 0) return Errno(EFAULT);
      break;
    }
    total += record.size();
  }
  if (total == 0) return Errno(EAGAIN);
  return total;
}

size_t InotifyQueue::bytes() const {
  const absl::MutexLock lock(&mu_);
  size_t total = 0;
  for (const Event& event : events_) total += event.bytes();
  return total;
}

bool InotifyQueue::empty() const {
  const absl::MutexLock lock(&mu_);
  return events_.empty();
}

std::string InotifyQueue::FdInfo() const {
  std::vector<std::pair<MarkRef, uint32_t>> marks;
  {
    const absl::MutexLock lock(&mu_);
    for (const auto& [descriptor, mark] : marks_) marks.emplace_back(mark, mark->mask);
  }
  std::string text;
  for (const auto& [mark, mask] : marks) {
    const Result<Attributes> attributes = mark->inode->GetAttributes();
    char line[128];
    std::snprintf(line, sizeof(line),
                  "inotify wd:%x ino:%" PRIx64 " sdev:%" PRIx64 " mask:%x ignored_mask:0\n",
                  static_cast<uint32_t>(mark->descriptor),
                  attributes.ok() ? attributes.value().inode : 0,
                  attributes.ok() ? attributes.value().device : 0, mask);
    text += line;
  }
  return text;
}

// --- The file.

Result<std::shared_ptr<InotifyFile>> InotifyFile::Create(Task& task, uint32_t flags) {
  const uint32_t uid = task.own_credentials().uid;
  TRY(task.kernel().anonymous_files().AddInotifyInstance(uid));
  return std::make_shared<InotifyFile>(task, flags, uid);
}

InotifyFile::InotifyFile(Task& task, uint32_t flags, uint32_t uid)
    : AnonymousFile(task, "inotify", O_RDONLY | flags),
      limits_(task.kernel().anonymous_files()),
      uid_(uid),
      queue_(std::make_shared<InotifyQueue>(limits_, uid)) {}

InotifyFile::~InotifyFile() {
  queue_->Close();
  limits_.RemoveInotifyInstance(uid_);
}

Result<int32_t> InotifyFile::AddWatch(const Path& path, uint32_t mask) {
  return queue_->AddWatch(path, mask);
}
Result<void> InotifyFile::RemoveWatch(int32_t descriptor) {
  return queue_->RemoveWatch(descriptor);
}

Result<size_t> InotifyFile::Read(Task& task, IoBuffer& to, uint64_t* offset) {
  (void)task, (void)offset;
  return queue_->Read(to);
}

Result<uint64_t> InotifyFile::Ioctl(Task& task, uint32_t command, uint64_t argument) {
  if (command != FIONREAD) return Errno(ENOTTY);
  TRY(task.CopyOut(base::UserOut<int32_t>(base::UserAddr(argument)),
                   static_cast<int32_t>(queue_->bytes())));
  return uint64_t{0};
}

PollMask InotifyFile::Poll(PollMask interest) {
  (void)interest;
  return queue_->empty() ? 0 : kPollReadable;
}

WaitQueue* InotifyFile::wait_queue() { return &queue_->readers(); }
std::string InotifyFile::FdInfo() const { return queue_->FdInfo(); }

}  // namespace sentry
