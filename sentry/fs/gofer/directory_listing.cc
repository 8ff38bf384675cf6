#include "sentry/fs/gofer/directory_listing.h"

#include <utility>

namespace sentry {

void DirectoryListing::Insert(std::string_view name, uint64_t inode, uint8_t type,
                              std::optional<gofer::Attributes> attributes) {
  auto entry = std::make_unique<Entry>();
  entry->name = name;
  entry->inode = inode;
  entry->type = type;
  if (attributes) entry->attributes = std::make_unique<gofer::Attributes>(*attributes);
  const absl::MutexLock lock(&mu_);
  if (const auto found = by_name_.find(name); found != by_name_.end()) {
    const uint64_t cookie = found->second;
    by_name_.erase(found);
    by_cookie_.erase(cookie);
  }
  by_name_.emplace(entry->name, next_cookie_);
  by_cookie_.emplace(next_cookie_++, std::move(entry));
}

void DirectoryListing::Remove(std::string_view name) {
  const absl::MutexLock lock(&mu_);
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return;
  const uint64_t cookie = found->second;
  by_name_.erase(found);
  by_cookie_.erase(cookie);
}

bool DirectoryListing::Contains(std::string_view name) const {
  const absl::ReaderMutexLock lock(&mu_);
  return by_name_.contains(name);
}

std::optional<gofer::Attributes> DirectoryListing::TakeAttributes(std::string_view name) {
  const absl::MutexLock lock(&mu_);
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return std::nullopt;
  const auto attributes = std::move(by_cookie_.find(found->second)->second->attributes);
  if (attributes == nullptr) return std::nullopt;
  return *attributes;
}

void DirectoryListing::DropAttributes() {
  const absl::MutexLock lock(&mu_);
  for (auto& [cookie, entry] : by_cookie_) entry->attributes.reset();
}

void DirectoryListing::Read(uint64_t* offset, const DirectorySink& sink) const {
  const absl::ReaderMutexLock lock(&mu_);
  for (auto it = by_cookie_.lower_bound(*offset); it != by_cookie_.end(); ++it) {
    const Entry& entry = *it->second;
    if (!sink({entry.name, entry.inode, entry.type, it->first + 1})) return;
    *offset = it->first + 1;
  }
}

size_t DirectoryListing::size() const {
  const absl::ReaderMutexLock lock(&mu_);
  return by_cookie_.size();
}

}  // namespace sentry
