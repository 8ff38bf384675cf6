#include "sentry/socket/rights.h"

#include <linux/capability.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "platform/base/check.h"
#include "sentry/kernel/task.h"
#include "sentry/socket/channel.h"

namespace sentry {

base::Result<void> RightsInFlight::Send(Task& task, size_t count,
                                        absl::FunctionRef<void()> enqueue) {
  const auto credentials = task.credentials();
  const bool privileged =
      credentials->HasCapability(CAP_SYS_RESOURCE) || credentials->HasCapability(CAP_SYS_ADMIN);
  const size_t limit = privileged ? kFilesMax : std::min<uint64_t>(task.fd_limit(), kFilesMax);
  for (int attempt = 0;; ++attempt) {
    {
      const absl::MutexLock lock(&mu_);
      if (files_ + count <= limit) {
        enqueue();
        return {};
      }
    }
    if (attempt > 0) return base::Errno(ETOOMANYREFS);
    Collect();
  }
}

void RightsInFlight::Receive(absl::FunctionRef<void()> dequeue) {
  const absl::MutexLock lock(&mu_);
  dequeue();
}

void RightsInFlight::AddInFlight(const std::vector<FileRef>& files) {
  mu_.AssertHeld();
  files_ += files.size();
  for (const FileRef& file : files) {
    if (dynamic_cast<RightsHolder*>(file.get()) != nullptr) ++sockets_[file.get()];
  }
}

void RightsInFlight::RemoveInFlight(const std::vector<FileRef>& files) {
  mu_.AssertHeld();
  files_ -= files.size();
  for (const FileRef& file : files) {
    const auto found = sockets_.find(file.get());
    if (found != sockets_.end() && --found->second == 0) sockets_.erase(found);
  }
}

void RightsInFlight::Dispose(std::vector<FileRef> files) {
  thread_local std::vector<FileRef>* active = nullptr;
  if (active != nullptr) {
    std::move(files.begin(), files.end(), std::back_inserter(*active));
    return;
  }
  active = &files;
  while (!files.empty()) {
    const FileRef last = std::move(files.back());
    files.pop_back();
    // Its destructor, at the end of this scope, may add to `files`.
  }
  active = nullptr;
}

void RightsInFlight::Collect() {
  std::vector<FileRef> garbage;
  {
    const absl::MutexLock lock(&mu_);
    if (sockets_.empty()) return;
    garbage = FindGarbageLocked();
  }
  Dispose(std::move(garbage));
}

// A candidate has all its references in messages. Take away those that lie in candidates' own
// queues: whoever has some left lies in a queue that somebody can still read, so it is alive, and
// so is what it holds in turn.
std::vector<FileRef> RightsInFlight::FindGarbageLocked() {
  absl::flat_hash_map<File*, int64_t> left;
  for (const auto& [file, count] : sockets_) {
    // One use is the probe. A reference dropped by another thread meanwhile is found next time;
    // none can appear, as that takes a message, and those are at rest.
    const FileRef probe = file->weak_from_this().lock();
    if (probe != nullptr && probe.use_count() - 1 <= count) left[file] = count;
  }
  const auto held_by = [](File* file) {
    std::vector<std::shared_ptr<Channel>> inboxes;
    std::vector<File*> held;
    dynamic_cast<RightsHolder*>(file)->AppendInboxes(inboxes);
    for (const auto& inbox : inboxes) inbox->AppendFiles(held);
    return held;
  };
  std::vector<File*> candidates;
  for (const auto& [file, count] : left) candidates.push_back(file);
  for (File* candidate : candidates) {
    for (File* file : held_by(candidate)) {
      const auto found = left.find(file);
      if (found != left.end()) --found->second;
    }
  }
  std::vector<File*> to_visit;
  for (File* candidate : candidates) {
    if (left[candidate] > 0) to_visit.push_back(candidate);
  }
  for (File* file : to_visit) left.erase(file);
  while (!to_visit.empty()) {
    File* const file = to_visit.back();
    to_visit.pop_back();
    for (File* held : held_by(file)) {
      if (left.erase(held) > 0) to_visit.push_back(held);
    }
  }
  std::vector<FileRef> garbage;
  for (const auto& [file, count] : left) {
    std::vector<std::shared_ptr<Channel>> inboxes;
    dynamic_cast<RightsHolder*>(file)->AppendInboxes(inboxes);
    for (const auto& inbox : inboxes) {
      std::vector<FileRef> files = inbox->StripFiles();
      RemoveInFlight(files);
      std::move(files.begin(), files.end(), std::back_inserter(garbage));
    }
  }
  return garbage;
}

}  // namespace sentry
