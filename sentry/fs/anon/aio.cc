#include "sentry/fs/anon/aio.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "sentry/fs/anon/eventfd.h"

namespace sentry {

using base::Errno;
using base::Result;

// Waits in the queue of its file. Whoever sets `finished` first completes it.
class AioContext::PollRequest final : public Waiter {
 public:
  PollRequest(std::weak_ptr<AioContext> owner, const AioEvent& made, FileRef watched,
              PollMask wanted, std::shared_ptr<EventFile> told)
      : context(std::move(owner)),
        event(made),
        file(std::move(watched)),
        interest(wanted),
        notified(std::move(told)) {}
  ~PollRequest() override { Detach(); }
  bool OnEvent(PollMask mask) override {
    const std::shared_ptr<AioContext> owner = context.lock();
    if (owner != nullptr) owner->Finish(*this, mask);
    return false;
  }

  const std::weak_ptr<AioContext> context;
  const AioEvent event;
  const FileRef file;
  const PollMask interest;
  const std::shared_ptr<EventFile> notified;
  std::atomic<bool> finished{false};
};

AioContext::~AioContext() {
  Close();
  account_.fetch_sub(charged_, std::memory_order_relaxed);
}

Result<void> AioContext::Reserve() {
  std::vector<std::shared_ptr<PollRequest>> done;  // Let go of after the lock: they leave queues.
  const absl::MutexLock lock(&mu_);
  for (std::shared_ptr<PollRequest>& poll : polls_) {
    if (poll->finished.load(std::memory_order_acquire)) done.push_back(std::move(poll));
  }
  std::erase(polls_, nullptr);
  if (closed_) return Errno(EINVAL);
  if (used_ >= slots_) return Errno(EAGAIN);
  ++used_;
  return {};
}

void AioContext::Unreserve() {
  const absl::MutexLock lock(&mu_);
  --used_;
}

void AioContext::Complete(const AioEvent& event, EventFile* notified) {
  {
    const absl::MutexLock lock(&mu_);
    if (closed_) return;
    events_.push_back(event);
  }
  if (notified != nullptr) notified->Signal(1);
  queue_.Notify(kPollReadable);
}

void AioContext::StartPoll(const AioEvent& request, FileRef file, PollMask interest,
                           std::shared_ptr<EventFile> notified) {
  const auto poll = std::make_shared<PollRequest>(weak_from_this(), request, std::move(file),
                                                  interest, std::move(notified));
  {
    const absl::MutexLock lock(&mu_);
    polls_.push_back(poll);
  }
  if (WaitQueue* const queue = poll->file->wait_queue()) queue->Add(*poll, interest);
  const PollMask ready = poll->file->Poll(interest);
  if (ready != 0) Finish(*poll, ready);
}

// May run under the lock of the file's queue: it leaves that later (Reserve, Take, the end).
void AioContext::Finish(PollRequest& poll, PollMask mask) {
  if (poll.finished.exchange(true, std::memory_order_acq_rel)) return;
  AioEvent event = poll.event;
  event.result = static_cast<int64_t>(mask & (poll.interest | kPollAlways));
  Complete(event, poll.notified.get());
}

Result<void> AioContext::Cancel(uint64_t request) {
  std::shared_ptr<PollRequest> found;
  {
    const absl::MutexLock lock(&mu_);
    for (const std::shared_ptr<PollRequest>& poll : polls_) {
      if (poll->event.request == request && !poll->finished.load()) found = poll;
    }
  }
  if (found == nullptr) return Errno(EINVAL);
  Finish(*found, 0);
  return {};
}

std::vector<AioEvent> AioContext::Take(size_t most) {
  std::vector<std::shared_ptr<PollRequest>> done;
  const absl::MutexLock lock(&mu_);
  for (std::shared_ptr<PollRequest>& poll : polls_) {
    if (poll->finished.load(std::memory_order_acquire)) done.push_back(std::move(poll));
  }
  std::erase(polls_, nullptr);
  const size_t count = std::min(most, events_.size());
  const auto end = events_.begin() + static_cast<std::ptrdiff_t>(count);
  std::vector<AioEvent> taken(events_.begin(), end);
  events_.erase(events_.begin(), end);
  used_ -= count;
  return taken;
}

void AioContext::Close() {
  std::vector<std::shared_ptr<PollRequest>> polls;
  {
    const absl::MutexLock lock(&mu_);
    closed_ = true;
    polls = std::move(polls_);
    polls_.clear();
  }
  for (const std::shared_ptr<PollRequest>& poll : polls) poll->Detach();
  queue_.Notify(kPollReadable);
}

bool AioContext::IsClosed() const {
  const absl::MutexLock lock(&mu_);
  return closed_;
}

AioContexts::~AioContexts() {
  for (const auto& [id, context] : contexts_) context->Close();
}

void AioContexts::Add(uint64_t id, std::shared_ptr<AioContext> context) {
  const absl::MutexLock lock(&mu_);
  contexts_.insert_or_assign(id, std::move(context));
}

std::shared_ptr<AioContext> AioContexts::Find(uint64_t id) const {
  const absl::MutexLock lock(&mu_);
  const auto it = contexts_.find(id);
  return it == contexts_.end() ? nullptr : it->second;
}

std::shared_ptr<AioContext> AioContexts::Remove(uint64_t id) {
  const absl::MutexLock lock(&mu_);
  auto node = contexts_.extract(id);
  return node.empty() ? nullptr : std::move(node.mapped());
}

}  // namespace sentry
