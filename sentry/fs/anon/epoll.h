#pragma once

// epoll(7).
//
// Each watched (file, descriptor) pair is an Entry: a Waiter in the file's queue. An event puts the
// entry on the ready list and wakes a waiter of epoll_wait, which asks each listed file what it is
// ready for; so a wait costs what is ready, not what is watched.
//
// An entry does not keep its file open. Linux removes entries when the last descriptor of a file
// goes; here they are found expired when they come up, and swept when their number has doubled.

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/vfs/file.h"

namespace sentry {

struct EpollEvent {
  uint32_t events = 0;
  uint64_t data = 0;
};

class EpollFile : public AnonymousFile {
 public:
  // Chains of descriptions that watch each other are at most this long.
  static constexpr int kNestingMax = 5;

  explicit EpollFile(Task& task);
  ~EpollFile() override;

  // epoll_ctl(2). EEXIST, EINVAL, ELOOP, ENOENT, EPERM.
  base::Result<void> Add(const FileRef& file, int32_t fd, const EpollEvent& event)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Modify(const FileRef& file, int32_t fd, const EpollEvent& event)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Delete(const FileRef& file, int32_t fd) ABSL_LOCKS_EXCLUDED(mu_);

  // At most `count` events to `deliver`; if that fails, nothing has happened. EAGAIN if there are
  // none. `deliver` runs under mu_ and may copy to guest memory.
  using Deliver = std::function<base::Result<void>(std::span<const EpollEvent>)>;
  base::Result<size_t> Collect(size_t count, const Deliver& deliver) ABSL_LOCKS_EXCLUDED(mu_);
  // For tasks in epoll_wait: woken one at a time.
  WaitQueue& waiters() { return waiters_; }
  // Something may be ready: cheap, and maybe wrong.
  bool MaybeReady() ABSL_LOCKS_EXCLUDED(ready_mu_);

  PollMask Poll(PollMask interest) override ABSL_LOCKS_EXCLUDED(mu_);
  WaitQueue* wait_queue() override { return &poll_queue_; }
  std::string FdInfo() const override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  class Entry;
  struct Key {
    const File* file = nullptr;
    int32_t fd = -1;
    friend bool operator==(const Key&, const Key&) = default;
    template <typename H>
    friend H AbslHashValue(H hash, const Key& key) {
      return H::combine(std::move(hash), key.file, key.fd);
    }
  };
  using EntryList = std::list<Entry*>;

  bool MakeReady(Entry& entry) ABSL_LOCKS_EXCLUDED(ready_mu_);
  PollMask Ask(Entry& entry, File& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Erase(const Key& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SweepIfLarge() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes the listed entry off; for use while its state is looked at.
  void Unlist(Entry& entry) ABSL_LOCKS_EXCLUDED(ready_mu_);

  // Nesting, under AnonymousFiles::epoll_nesting_mu().
  static int Height(const EpollFile& file);
  static int Depth(const EpollFile& file);
  base::Result<void> Nest(EpollFile& inner);
  void Unnest(EpollFile& inner);

  AnonymousFiles& anonymous_files_;
  std::vector<EpollFile*> inner_;  // Guarded by epoll_nesting_mu; one per entry.
  std::vector<EpollFile*> outer_;  // Likewise.

  WaitQueue waiters_;
  WaitQueue poll_queue_;
  mutable absl::Mutex mu_;
  absl::flat_hash_map<Key, std::unique_ptr<Entry>> entries_ ABSL_GUARDED_BY(mu_);
  size_t sweep_at_ ABSL_GUARDED_BY(mu_) = 64;
  // After mu_, and after the queues of watched files.
  absl::Mutex ready_mu_;
  EntryList ready_ ABSL_GUARDED_BY(ready_mu_);
};

}  // namespace sentry
