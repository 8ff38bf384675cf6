#include "sentry/vfs/dentry_cache.h"

#include <sys/mount.h>

#include <utility>
#include <vector>

#include "platform/base/strings.h"

namespace sentry {

// How many entries the hand looks at for each new one once the cache is full.
constexpr int kStepsPerInsertion = 8;

Dentry::Dentry(std::shared_ptr<Dentry> parent, std::string name, InodeRef inode)
    : file_system_(parent == nullptr && inode != nullptr
                       ? inode->file_system().weak_from_this().lock()
                       : nullptr),
      inode_(std::move(inode)),
      parent_(std::move(parent)),
      name_(std::move(name)) {}

Dentry::~Dentry() {
  // The last reference to a chain of ancestors may go with this one, and a path may be longer than
  // a stack is deep.
  std::shared_ptr<Dentry> up;
  {
    const absl::MutexLock lock(&name_mu_);
    up.swap(parent_);
  }
  while (up != nullptr && up.use_count() == 1) {
    std::shared_ptr<Dentry> next;
    {
      const absl::MutexLock lock(&up->name_mu_);
      next.swap(up->parent_);
    }
    up = std::move(next);
  }
}

std::shared_ptr<Dentry> Dentry::parent() const {
  const absl::MutexLock lock(&name_mu_);
  return parent_;
}

std::string Dentry::name() const {
  const absl::MutexLock lock(&name_mu_);
  return name_;
}

bool Mount::read_only() const {
  return (flags.load(std::memory_order_relaxed) & MS_RDONLY) != 0 || file_system->read_only();
}

DentryRef DentryCache::Find(const Dentry& directory, std::string_view name) {
  const absl::ReaderMutexLock lock(&directory.children_mu_);
  const auto found = directory.children_.find(base::Absl(name));
  if (found == directory.children_.end()) return nullptr;
  if (!found->second->referenced_.load(std::memory_order_relaxed)) {
    found->second->referenced_.store(true, std::memory_order_relaxed);
  }
  return found->second;
}

DentryRef DentryCache::Insert(const DentryRef& directory, std::string_view name, InodeRef inode) {
  return Put(directory, name, std::move(inode), false);
}

DentryRef DentryCache::Replace(const DentryRef& directory, std::string_view name, InodeRef inode) {
  return Put(directory, name, std::move(inode), true);
}

DentryRef DentryCache::Put(const DentryRef& directory, std::string_view name, InodeRef inode,
                           bool replace) {
  DentryRef entry = std::make_shared<Dentry>(directory, std::string(name), std::move(inode));
  DentryRef replaced;  // Destroyed outside the lock: it may own the last reference to an inode.
  {
    const absl::MutexLock lock(&directory->children_mu_);
    DentryRef& place = directory->children_[base::Absl(name)];
    if (place != nullptr && !replace && !(place->is_negative() && !entry->is_negative()))
      return place;
    replaced = std::exchange(place, entry);
    if (replaced != nullptr && !replaced->is_negative())
      replaced->deleted_.store(true, std::memory_order_release);
  }
  if (replaced != nullptr && replaced->is_directory()) PruneTree(replaced);
  Track(entry);
  return entry;
}

void DentryCache::Remove(const DentryRef& directory, Dentry& child, bool leave_negative) {
  const std::string name = child.name();
  DentryRef removed;
  {
    const absl::MutexLock lock(&directory->children_mu_);
    const auto found = directory->children_.find(name);
    if (found != directory->children_.end() && found->second.get() == &child) {
      removed = std::move(found->second);
      directory->children_.erase(found);
    }
    child.deleted_.store(true, std::memory_order_release);
  }
  if (removed != nullptr && removed->is_directory())
    PruneTree(removed);  // Names that it is known not to have.
  if (leave_negative) Insert(directory, name, nullptr);
}

void DentryCache::Move(const DentryRef& from, const DentryRef& child, const DentryRef& to,
                       std::string_view name, bool leave_negative) {
  const std::string old_name = child->name();
  DentryRef replaced;
  DentryRef removed;
  {
    const absl::MutexLock lock(&from->children_mu_);
    const auto found = from->children_.find(old_name);
    if (found != from->children_.end()) {
      removed = std::move(found->second);
      from->children_.erase(found);
    }
  }
  {
    const absl::MutexLock lock(&child->name_mu_);
    child->parent_ = to;
    child->name_ = std::string(name);
  }
  {
    const absl::MutexLock lock(&to->children_mu_);
    replaced = std::exchange(to->children_[base::Absl(name)], child);
    if (replaced != nullptr) replaced->deleted_.store(true, std::memory_order_release);
  }
  if (replaced != nullptr && replaced->is_directory()) PruneTree(replaced);
  if (leave_negative) Insert(from, old_name, nullptr);
  // Lock orders follow the tree, and the tree has changed.
  child->change_mu_.ForgetDeadlockInfo();
  from->change_mu_.ForgetDeadlockInfo();
  to->change_mu_.ForgetDeadlockInfo();
}

void DentryCache::Exchange(const DentryRef& directory_a, const DentryRef& a,
                           const DentryRef& directory_b, const DentryRef& b) {
  const std::string name_a = a->name();
  const std::string name_b = b->name();
  {
    const absl::MutexLock lock(&directory_a->children_mu_);
    directory_a->children_[name_a] = b;
  }
  {
    const absl::MutexLock lock(&directory_b->children_mu_);
    directory_b->children_[name_b] = a;
  }
  {
    const absl::MutexLock lock(&a->name_mu_);
    a->parent_ = directory_b;
    a->name_ = name_b;
  }
  {
    const absl::MutexLock lock(&b->name_mu_);
    b->parent_ = directory_a;
    b->name_ = name_a;
  }
  for (const DentryRef& each : {directory_a, directory_b, a, b})
    each->change_mu_.ForgetDeadlockInfo();
}

void DentryCache::PruneTree(const DentryRef& root) {
  std::vector<DentryRef> pending{root};
  while (!pending.empty()) {
    const DentryRef directory = std::move(pending.back());
    pending.pop_back();
    absl::flat_hash_map<std::string, DentryRef> children;
    {
      const absl::MutexLock lock(&directory->children_mu_);
      children.swap(directory->children_);
    }
    for (auto& [name, child] : children) {
      if (child->is_directory()) pending.push_back(child);
    }
  }
}

void DentryCache::Track(const DentryRef& entry) {
  std::vector<DentryRef> evicted;  // Destroyed after the lock is gone.
  const absl::MutexLock lock(&mu_);
  clock_.push_back(entry);
  for (int step = 0; step < kStepsPerInsertion && clock_.size() > entries_max_; ++step) {
    DentryRef candidate = clock_.front().lock();
    clock_.pop_front();
    if (candidate == nullptr) continue;
    if (!TryEvict(candidate)) clock_.push_back(candidate);
    evicted.push_back(std::move(candidate));
  }
}

bool DentryCache::TryEvict(DentryRef& entry) {
  if (entry->referenced_.exchange(false, std::memory_order_relaxed)) return false;
  const DentryRef parent = entry->parent();
  if (parent == nullptr) return false;
  const absl::MutexLock lock(&parent->children_mu_);
  // Two references: the table's and ours. New ones come only through the table, whose lock we hold.
  if (entry.use_count() > 2) return false;
  const auto found = parent->children_.find(entry->name());
  if (found == parent->children_.end() || found->second != entry) return false;
  parent->children_.erase(found);
  return true;
}

size_t DentryCache::size() const {
  const absl::MutexLock lock(&mu_);
  return clock_.size();
}

}  // namespace sentry
