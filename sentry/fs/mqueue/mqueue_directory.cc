// Names of queues, and how one is made.

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr uint64_t kMqueueMagic = 0x19800202;
constexpr uint32_t kPermissions = 01777;

int AccessFor(uint32_t flags) {
  constexpr int kMasks[] = {R_OK, W_OK, R_OK | W_OK};
  return kMasks[flags & O_ACCMODE];
}

// One name, not a path: lookup_one_len in Linux.
Result<void> CheckName(std::string_view name) {
  if (name.empty()) return Errno(ENOENT);
  if (name == "." || name == ".." || name.find('/') != std::string_view::npos) return Errno(EACCES);
  if (name.size() > kNameBytesMax) return Errno(ENAMETOOLONG);
  return {};
}

// mq_attr_ok.
Result<void> CheckShape(const MqueueAttributes& attributes, const MqueueLimits& limits,
                        bool privileged) {
  if (attributes.messages_max <= 0 || attributes.bytes_max <= 0) return Errno(EINVAL);
  const int64_t messages =
      privileged ? int64_t{MqueueLimits::kHardMessagesMax} : int64_t{limits.messages_max.load()};
  const int64_t bytes =
      privileged ? int64_t{MqueueLimits::kHardBytesMax} : int64_t{limits.bytes_max.load()};
  if (attributes.messages_max > messages || attributes.bytes_max > bytes) return Errno(EINVAL);
  return {};
}

}  // namespace

std::shared_ptr<MqueueFileSystem> MqueueFileSystem::Make(Kernel& kernel) {
  return std::make_shared<MqueueFileSystem>(kernel);
}

MqueueFileSystem::MqueueFileSystem(Kernel& kernel)
    : SyntheticFileSystem({.type_name = "mqueue", .magic = kMqueueMagic, .caches_dentries = false},
                          kernel.clock()),
      kernel_(kernel),
      limits_(std::make_shared<MqueueLimits>()),
      directory_(std::make_shared<MqueueDirectory>(*this)) {
  SetRoot(directory_);
}

bool MqueueFileSystem::Revalidate(Inode&, std::string_view name, Inode& child) {
  return directory_->Find(name).get() == &child;
}

Result<std::shared_ptr<MessageQueueInode>> MqueueFileSystem::NewQueue(
    const Credentials& who, uint64_t user_limit, const CreateContext& context,
    const MqueueAttributes& attributes) {
  const bool privileged = who.HasCapability(CAP_SYS_RESOURCE);
  {
    const absl::MutexLock lock(&limits_->mu);
    const uint32_t queues_max =
        privileged ? MqueueLimits::kHardQueuesMax : limits_->queues_max.load();
    if (limits_->queues >= queues_max) return Errno(ENOSPC);
    TRY(CheckShape(attributes, *limits_, privileged));
    const uint64_t charge = MessageQueueInode::ChargeOf(attributes);
    uint64_t& used = limits_->user_bytes[who.uid];
    if (used + charge > user_limit) return Errno(EMFILE);
    used += charge;
    ++limits_->queues;
  }
  // From here on the inode's end takes both back.
  return std::make_shared<MessageQueueInode>(*this, limits_, context, attributes, who.uid);
}

Result<FileRef> MqueueFileSystem::OpenQueue(Task& task, const std::string& name, uint32_t flags,
                                            uint32_t mode,
                                            const std::optional<MqueueAttributes>& attributes) {
  TRY(CheckName(name));
  const Credentials& who = task.own_credentials();
  std::shared_ptr<MessageQueueInode> queue = directory_->Find(name);
  if (queue != nullptr && (flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL)) return Errno(EEXIST);
  if (queue == nullptr) {
    if ((flags & O_CREAT) == 0) return Errno(ENOENT);
    TRY(directory_->CheckPermission(who, W_OK | X_OK));
    MqueueAttributes shape;
    // Defaults stay within what an unprivileged process may ask for.
    shape.messages_max = std::min(limits_->messages_default, limits_->messages_max);
    shape.bytes_max = std::min(limits_->bytes_default, limits_->bytes_max);
    if (attributes) shape = *attributes;
    const CreateContext context{mode & 0777 & ~task.fs().umask(), who.fsuid, who.fsgid};
    queue = TRY(NewQueue(who, task.group().Limit(RLIMIT_MSGQUEUE), context, shape));
    const Result<void> added = directory_->Add(name, queue);
    if (!added.ok() && (flags & O_EXCL) != 0) return added.error();
    if (!added.ok()) queue = directory_->Find(name);
    if (queue == nullptr) return Errno(ENOENT);
  } else {
    if ((flags & O_ACCMODE) == O_ACCMODE) return Errno(EINVAL);
    TRY(queue->CheckPermission(who, AccessFor(flags)));
  }
  const Path path = kernel_.vfs().AnonymousPath(shared_from_this(), queue, "/" + name);
  return queue->Open(task, path, flags & (O_ACCMODE | O_NONBLOCK));
}

Result<void> MqueueFileSystem::UnlinkQueue(Task& task, const std::string& name) {
  TRY(CheckName(name));
  const std::shared_ptr<MessageQueueInode> queue = directory_->Find(name);
  if (queue == nullptr) return Errno(ENOENT);
  const Credentials& who = task.own_credentials();
  TRY(directory_->CheckPermission(who, W_OK | X_OK));
  // The directory is root's and sticky.
  const Attributes attributes = TRY(queue->GetAttributes());
  if (attributes.uid != who.fsuid && who.fsuid != 0 && !who.HasCapability(CAP_FOWNER))
    return Errno(EPERM);
  return directory_->Unlink(name, *queue);
}

MqueueDirectory::MqueueDirectory(MqueueFileSystem& file_system)
    : SyntheticDirectory(file_system, kPermissions), mqueue_(file_system) {}

Result<Attributes> MqueueDirectory::GetAttributes() {
  Attributes attributes = TRY(SyntheticDirectory::GetAttributes());
  attributes.nlink = 2;
  return attributes;
}

std::shared_ptr<MessageQueueInode> MqueueDirectory::Find(std::string_view name) {
  const absl::MutexLock lock(&mu_);
  const auto it = queues_.find(name);
  return it == queues_.end() ? nullptr : it->second;
}

Result<void> MqueueDirectory::Add(std::string_view name, std::shared_ptr<MessageQueueInode> queue) {
  const absl::MutexLock lock(&mu_);
  if (!queues_.emplace(name, std::move(queue)).second) return Errno(EEXIST);
  return {};
}

Result<InodeRef> MqueueDirectory::Lookup(std::string_view name) {
  const std::shared_ptr<MessageQueueInode> queue = Find(name);
  if (queue == nullptr) return Errno(ENOENT);
  return InodeRef(queue);
}

// open(2) with O_CREAT in a mounted instance.
Result<InodeRef> MqueueDirectory::Create(std::string_view name, const CreateContext& context) {
  Credentials who;
  who.uid = context.uid;
  MqueueLimits& limits = mqueue_.limits();
  MqueueAttributes shape;
  shape.messages_max = std::min(limits.messages_default, limits.messages_max);
  shape.bytes_max = std::min(limits.bytes_default, limits.bytes_max);
  std::shared_ptr<MessageQueueInode> queue =
      TRY(mqueue_.NewQueue(who, MqueueLimits::kTotalBytesMax, context, shape));
  TRY(Add(name, queue));
  return InodeRef(queue);
}

Result<void> MqueueDirectory::Unlink(std::string_view name, Inode& child) {
  std::shared_ptr<MessageQueueInode> gone;  // Let go of after the lock.
  const absl::MutexLock lock(&mu_);
  const auto it = queues_.find(name);
  if (it == queues_.end() || it->second.get() != &child) return Errno(ENOENT);
  gone = std::move(it->second);
  queues_.erase(it);
  return {};
}

Result<std::vector<SyntheticDirectory::Entry>> MqueueDirectory::List(Task&) {
  const absl::MutexLock lock(&mu_);
  std::vector<Entry> entries;
  entries.reserve(queues_.size());
  for (const auto& [name, queue] : queues_)
    entries.push_back({name, queue->number(), DT_REG, kFirstPosition + entries.size()});
  return entries;
}

}  // namespace sentry
