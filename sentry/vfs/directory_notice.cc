#include "sentry/vfs/directory_notice.h"

#include <fcntl.h>
#include <sys/inotify.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "sentry/vfs/file_owner.h"
#include "sentry/vfs/inode_attachments.h"
#include "sentry/vfs/notify.h"

namespace sentry {

using base::Result;

namespace {

struct EventPair {
  uint32_t dnotify;
  uint32_t inotify;
};
constexpr EventPair kEvents[] = {{DN_ACCESS, IN_ACCESS},
                                 {DN_MODIFY, IN_MODIFY},
                                 {DN_CREATE, IN_CREATE | IN_MOVED_TO},
                                 {DN_DELETE, IN_DELETE | IN_MOVED_FROM},
                                 {DN_ATTRIB, IN_ATTRIB}};
constexpr uint32_t kAllEvents =
    DN_ACCESS | DN_MODIFY | DN_CREATE | DN_DELETE | DN_RENAME | DN_ATTRIB;

uint32_t MaskFor(uint32_t events) {
  uint32_t mask = 0;
  for (const EventPair& pair : kEvents) {
    if ((events & pair.dnotify) != 0) mask |= pair.inotify;
  }
  return mask;
}

}  // namespace

class DirectoryNotice final : public Watch {
 public:
  DirectoryNotice(const FileRef& file, const void* owner, int32_t fd, uint32_t events)
      : file_(file), address_(file.get()), owner_(owner), fd_(fd), events_(events) {}

  void OnEvent(uint32_t mask, std::string_view, uint32_t cookie) override {
    const uint32_t events = events_.load(std::memory_order_acquire);
    // A rename that stays in the directory is the two halves of one.
    if ((mask & IN_MOVED_FROM) != 0) moved_.store(cookie, std::memory_order_relaxed);
    const bool renamed = (mask & IN_MOVED_TO) != 0 && (events & DN_RENAME) != 0 &&
                         moved_.load(std::memory_order_relaxed) == cookie;
    if ((mask & MaskFor(events)) == 0 && !renamed) return;
    const FileRef file = file_.lock();
    if (file == nullptr) return;
    file->owner().Tell(fd_.load(std::memory_order_relaxed));
    if ((events & DN_MULTISHOT) == 0) file->inode()->attachments().notices.Remove(*this);
  }
  bool IsOf(const File& file, const void* owner) const {
    return address_ == &file && owner_ == owner;
  }
  void Add(int32_t fd, uint32_t events) {
    fd_.store(fd, std::memory_order_relaxed);
    events_.fetch_or(events, std::memory_order_acq_rel);
  }

 private:
  friend class DirectoryNotices;
  const std::weak_ptr<File> file_;
  const File* const address_;
  const void* const owner_;
  std::atomic<int32_t> fd_;
  std::atomic<uint32_t> events_;
  std::atomic<uint32_t> moved_{0};  // Cookie of the last name that left.
};

std::shared_ptr<DirectoryNotice> DirectoryNotices::Take(const File& file, const void* owner) {
  const absl::MutexLock lock(&mu_);
  const auto it = std::find_if(notices_.begin(), notices_.end(),
                               [&](const auto& notice) { return notice->IsOf(file, owner); });
  if (it == notices_.end()) return nullptr;
  std::shared_ptr<DirectoryNotice> taken = std::move(*it);
  notices_.erase(it);
  return taken;
}

Result<void> DirectoryNotices::Set(const FileRef& file, const void* owner, int32_t fd,
                                   uint32_t events) {
  if ((events & kAllEvents) == 0) {
    Remove(*file, owner);
    return {};
  }
  const std::shared_ptr<DirectoryNotice> existing = Take(*file, owner);
  const auto notice =
      existing != nullptr ? existing : std::make_shared<DirectoryNotice>(file, owner, fd, events);
  if (existing != nullptr) existing->Add(fd, events);
  {
    const absl::MutexLock lock(&mu_);
    notices_.push_back(notice);
  }
  if (existing == nullptr) AddWatch(*file->inode(), notice);
  return {};
}

void DirectoryNotices::Remove(const File& file, const void* owner) {
  const std::shared_ptr<DirectoryNotice> taken = Take(file, owner);
  if (taken != nullptr) RemoveWatch(*file.inode(), *taken);
}

void DirectoryNotices::Remove(const DirectoryNotice& notice) {
  const FileRef file = notice.file_.lock();
  if (file != nullptr) Remove(*file, notice.owner_);
}

Result<void> SetDirectoryNotice(const FileRef& file, const void* owner, int32_t fd,
                                uint32_t events) {
  return file->inode()->attachments().notices.Set(file, owner, fd, events);
}

}  // namespace sentry
