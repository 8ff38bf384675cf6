#include "sentry/vfs/dentry_cache.h"

#include <sys/mount.h>

#include <utility>
#include <vector>

#include "absl/hash/hash.h"
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
      first_name_(std::move(name)),
      parent_now_(parent_.get()),
      name_now_(&first_name_) {}

Dentry::~Dentry() {
  // Before the way up: the root's dentry may be the last to hold the file system.
  inode_.reset();
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
  return *name_now_.load(std::memory_order_relaxed);
}

// ---- The index.

namespace {

uint64_t HashOf(const Dentry& directory, std::string_view name) {
  return absl::HashOf(&directory, base::Absl(name));
}

}  // namespace

DentryIndex::DentryIndex() : buckets_(new std::atomic<Dentry*>[kBuckets]()) {}

Dentry* DentryIndex::Find(const Dentry& directory, std::string_view name) const {
  // An entry that moves to another bucket takes a reader along: he may go on there for a while.
  constexpr int kStepsMax = 64;
  const uint64_t hash = HashOf(directory, name);
  Dentry* at = BucketOf(hash).load(std::memory_order_acquire);
  for (int step = 0; at != nullptr && step < kStepsMax; ++step) {
    if (at->index_hash_.load(std::memory_order_relaxed) == hash &&
        at->parent_now_.load(std::memory_order_acquire) == &directory &&
        *at->name_now_.load(std::memory_order_acquire) == name) {
      return at->indexed_.load(std::memory_order_acquire) ? at : nullptr;
    }
    at = at->index_next_.load(std::memory_order_acquire);
  }
  return nullptr;
}

void DentryIndex::Add(Dentry& entry, const Dentry& directory, std::string_view name) {
  const uint64_t hash = HashOf(directory, name);
  std::atomic<Dentry*>& bucket = BucketOf(hash);
  const absl::MutexLock lock(&mu_);
  entry.index_hash_.store(hash, std::memory_order_relaxed);
  entry.index_next_.store(bucket.load(std::memory_order_relaxed), std::memory_order_release);
  entry.indexed_.store(true, std::memory_order_seq_cst);
  bucket.store(&entry, std::memory_order_release);
}

void DentryIndex::Remove(Dentry& entry) {
  const absl::MutexLock lock(&mu_);
  if (!entry.indexed_.exchange(false, std::memory_order_seq_cst)) return;
  std::atomic<Dentry*>* link = &BucketOf(entry.index_hash_.load(std::memory_order_relaxed));
  while (link->load(std::memory_order_relaxed) != &entry) {
    link = &link->load(std::memory_order_relaxed)->index_next_;
  }
  // Its own link stays: readers that are at it go on from there.
  link->store(entry.index_next_.load(std::memory_order_relaxed), std::memory_order_release);
}

// ---- The cache.

DentryRef DentryCache::Find(const Dentry& directory, std::string_view name) {
  const absl::ReaderMutexLock lock(&directory.children_mu_);
  const auto found = directory.children_.find(base::Absl(name));
  if (found == directory.children_.end()) return nullptr;
  found->second->MarkUsed();
  return found->second;
}

DentryRef DentryCache::Insert(const DentryRef& directory, std::string_view name, InodeRef inode) {
  return Put(directory, name, std::move(inode), false);
}

DentryRef DentryCache::Replace(const DentryRef& directory, std::string_view name, InodeRef inode) {
  return Put(directory, name, std::move(inode), true);
}

void DentryCache::AddToIndex(Dentry& entry, const Dentry& directory, std::string_view name) {
  // What others may change behind our back is asked for again each time.
  if (directory.inode()->file_system().CachesDentries()) index_.Add(entry, directory, name);
}

DentryRef DentryCache::Put(const DentryRef& directory, std::string_view name, InodeRef inode,
                           bool replace) {
  DentryRef entry = std::make_shared<Dentry>(directory, std::string(name), std::move(inode));
  DentryRef replaced;
  {
    const absl::MutexLock lock(&directory->children_mu_);
    DentryRef& place = directory->children_[base::Absl(name)];
    if (place != nullptr && !replace && !(place->is_negative() && !entry->is_negative()))
      return place;
    replaced = std::exchange(place, entry);
    if (replaced != nullptr) {
      index_.Remove(*replaced);
      if (!replaced->is_negative()) replaced->deleted_.store(true, std::memory_order_release);
    }
    AddToIndex(*entry, *directory, name);
  }
  if (replaced != nullptr) {
    if (replaced->is_directory()) Prune(replaced);
    sections_.Retire(std::move(replaced));
    sections_.Collect();
  }
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
      index_.Remove(child);
    }
    child.deleted_.store(true, std::memory_order_release);
  }
  if (removed != nullptr) {
    if (removed->is_directory()) Prune(removed);  // Names that it is known not to have.
    sections_.Retire(std::move(removed));
    sections_.Collect();
  }
  if (leave_negative) Insert(directory, name, nullptr);
}

void DentryCache::SetPlace(const DentryRef& child, const DentryRef& to, std::string_view name) {
  auto new_name = std::make_shared<const std::string>(name);
  const absl::MutexLock lock(&child->name_mu_);
  child->name_now_.store(new_name.get(), std::memory_order_release);
  child->new_name_.swap(new_name);
  sections_.Retire(std::move(new_name));
  if (child->parent_ == to) return;
  child->parent_now_.store(to.get(), std::memory_order_release);
  sections_.Retire(std::exchange(child->parent_, to));
}

void DentryCache::Move(const DentryRef& from, const DentryRef& child, const DentryRef& to,
                       std::string_view name, bool leave_negative) {
  const std::string old_name = child->name();
  DentryRef replaced;
  DentryRef removed;
  renames_begun_.fetch_add(1, std::memory_order_seq_cst);
  {
    const absl::MutexLock lock(&from->children_mu_);
    const auto found = from->children_.find(old_name);
    if (found != from->children_.end()) {
      removed = std::move(found->second);
      from->children_.erase(found);
    }
    index_.Remove(*child);
  }
  SetPlace(child, to, name);
  {
    const absl::MutexLock lock(&to->children_mu_);
    replaced = std::exchange(to->children_[base::Absl(name)], child);
    if (replaced != nullptr) {
      index_.Remove(*replaced);
      replaced->deleted_.store(true, std::memory_order_release);
    }
    AddToIndex(*child, *to, name);
  }
  renames_finished_.fetch_add(1, std::memory_order_seq_cst);
  if (replaced != nullptr && replaced->is_directory()) Prune(replaced);
  sections_.Retire(std::move(replaced));
  sections_.Retire(std::move(removed));
  sections_.Collect();
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
  renames_begun_.fetch_add(1, std::memory_order_seq_cst);
  // Neither has a place while they change.
  index_.Remove(*a);
  index_.Remove(*b);
  SetPlace(a, directory_b, name_b);
  SetPlace(b, directory_a, name_a);
  const auto put = [this](const DentryRef& directory, const DentryRef& entry,
                          const std::string& name) {
    const absl::MutexLock lock(&directory->children_mu_);
    // Somebody may have looked the name up meanwhile, with whatever result.
    DentryRef& place = directory->children_[name];
    if (place != nullptr) index_.Remove(*place);
    sections_.Retire(std::exchange(place, entry));
    AddToIndex(*entry, *directory, name);
  };
  put(directory_a, b, name_a);
  put(directory_b, a, name_b);
  renames_finished_.fetch_add(1, std::memory_order_seq_cst);
  sections_.Collect();
  for (const DentryRef& each : {directory_a, directory_b, a, b})
    each->change_mu_.ForgetDeadlockInfo();
}

void DentryCache::PruneTree(const DentryRef& root) {
  Prune(root);
  sections_.Collect();
}

void DentryCache::Prune(const DentryRef& root) {
  std::vector<DentryRef> pending{root};
  while (!pending.empty()) {
    const DentryRef directory = std::move(pending.back());
    pending.pop_back();
    absl::flat_hash_map<std::string, DentryRef> children;
    {
      const absl::MutexLock lock(&directory->children_mu_);
      children.swap(directory->children_);
      for (auto& [name, child] : children) index_.Remove(*child);
    }
    for (auto& [name, child] : children) {
      if (child->is_directory()) pending.push_back(child);
      sections_.Retire(std::move(child));
    }
  }
}

void DentryCache::Track(const DentryRef& entry) {
  std::vector<DentryRef> looked_at;  // Destroyed after the lock is gone.
  bool evicted = false;
  {
    const absl::MutexLock lock(&mu_);
    clock_.push_back(entry);
    for (int step = 0; step < kStepsPerInsertion && clock_.size() > entries_max_; ++step) {
      DentryRef candidate = clock_.front().lock();
      clock_.pop_front();
      if (candidate == nullptr) continue;
      if (TryEvict(candidate)) {
        evicted = true;
      } else {
        clock_.push_back(candidate);
      }
      looked_at.push_back(std::move(candidate));
    }
  }
  if (evicted) sections_.Collect();
}

bool DentryCache::TryEvict(const DentryRef& entry) {
  if (entry->referenced_.exchange(false, std::memory_order_relaxed)) return false;
  const DentryRef parent = entry->parent();
  if (parent == nullptr) return false;
  const absl::MutexLock lock(&parent->children_mu_);
  // Two references: the table's and ours. New ones come through the table, whose lock we hold, or
  // from a reader who found it in the index.
  if (entry.use_count() > 2) return false;
  const std::string name = entry->name();
  const auto found = parent->children_.find(name);
  if (found == parent->children_.end() || found->second != entry) return false;
  // The reader takes a reference, then looks whether it is indexed; so either he sees that it is
  // not, or we see his reference. Both are locked instructions, hence barriers, on x86.
  index_.Remove(*entry);
  if (entry.use_count() > 2) {
    AddToIndex(*entry, *parent, name);
    return false;
  }
  sections_.Retire(std::move(found->second));
  parent->children_.erase(found);
  return true;
}

size_t DentryCache::size() const {
  const absl::MutexLock lock(&mu_);
  return clock_.size();
}

}  // namespace sentry
