#pragma once

// The ids and keys of one kind of System V IPC object. An id is a sequence number above an index of
// 15 bits; indices are given out in a cycle, so that the id of an object that has gone is not seen
// again soon. Plain data: the owner locks.

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "platform/base/result.h"
#include "sentry/ipc/permissions.h"

namespace sentry {

// T has a member `IpcPermissions permissions`.
template <typename T>
class IpcTable {
 public:
  using Ref = std::shared_ptr<T>;
  using Map = std::map<int32_t, Ref>;

  // Gives the object its id. ENOSPC with `limit` objects.
  base::Result<int32_t> Insert(Ref object, uint32_t limit) {
    if (by_index_.size() >= std::min(limit, kIpcIdsMax)) return base::Errno(ENOSPC);
    const int32_t wanted = std::exchange(next_id_, -1);
    if (wanted >= 0) {
      // That one, or the next that is free, with its sequence number.
      int32_t index = IndexOf(wanted);
      while (by_index_.contains(index)) ++index;
      if (index >= static_cast<int32_t>(kIpcIdsMax)) return base::Errno(ENOSPC);
      object->permissions.id = wanted - IndexOf(wanted) + index;
      return Place(index, std::move(object));
    }
    // The cycle is short while there are few objects: indices stay small.
    const auto in_use = static_cast<uint32_t>(by_index_.size());
    const auto cycle =
        static_cast<int32_t>(std::min({std::max(in_use * 3 / 2, kCycleMin), limit, kIpcIdsMax}));
    const int32_t index = FreeIndex(last_index_ + 1, cycle);
    if (index <= last_index_) sequence_ = sequence_ + 1 < kSequenceMax ? sequence_ + 1 : 0;
    last_index_ = index;
    object->permissions.id = (sequence_ << 15) + index;
    return Place(index, std::move(object));
  }

  // EINVAL if there is none of this id.
  base::Result<Ref> Find(int32_t id) const {
    if (id < 0) return base::Errno(EINVAL);
    const auto it = by_index_.find(IndexOf(id));
    if (it == by_index_.end() || it->second->permissions.id != id) return base::Errno(EINVAL);
    return it->second;
  }
  base::Result<Ref> FindIndex(int32_t index) const {
    const auto it = by_index_.find(index < 0 ? -1 : IndexOf(index));
    if (it == by_index_.end()) return base::Errno(EINVAL);
    return it->second;
  }
  // Null if there is none.
  Ref FindKey(int32_t key) const {
    const auto it = by_key_.find(key);
    return it == by_key_.end() ? nullptr : by_index_.at(it->second);
  }
  // The key leads to it no more.
  void DropKey(T& object) {
    if (object.permissions.key != kIpcPrivateKey) by_key_.erase(object.permissions.key);
    object.permissions.key = kIpcPrivateKey;
  }
  void Remove(T& object) {
    DropKey(object);
    by_index_.erase(IndexOf(object.permissions.id));
  }
  // -1 if there is none.
  int32_t MaxIndex() const { return by_index_.empty() ? -1 : by_index_.rbegin()->first; }
  const Map& objects() const { return by_index_; }
  size_t size() const { return by_index_.size(); }

  // /proc/sys/kernel/*_next_id: the id of the next object, -1 for none in particular.
  int32_t next_id() const { return next_id_; }
  void set_next_id(int32_t id) { next_id_ = id; }

 private:
  static constexpr uint32_t kCycleMin = 64;
  static constexpr int32_t kSequenceMax = 1 << 16;
  static int32_t IndexOf(int32_t id) { return id & (static_cast<int32_t>(kIpcIdsMax) - 1); }

  // The first free one at or after `from`, then from 0 on. Fewer than `end` are taken, or the ones
  // after it are free.
  int32_t FreeIndex(int32_t from, int32_t end) const {
    for (const int32_t start : {from < end ? from : 0, 0}) {
      int32_t index = start;
      for (auto it = by_index_.lower_bound(start); it != by_index_.end() && it->first == index;
           ++it) {
        ++index;
      }
      if (index < end) return index;
    }
    // Only with indices that were asked for by number is the cycle full.
    int32_t index = 0;
    while (by_index_.contains(index)) ++index;
    return index;
  }
  base::Result<int32_t> Place(int32_t index, Ref object) {
    const IpcPermissions& permissions = object->permissions;
    const int32_t id = permissions.id;
    if (permissions.key != kIpcPrivateKey) by_key_[permissions.key] = index;
    by_index_.emplace(index, std::move(object));
    return id;
  }

  Map by_index_;
  absl::flat_hash_map<int32_t, int32_t> by_key_;
  int32_t sequence_ = 0;
  int32_t last_index_ = -1;
  int32_t next_id_ = -1;
};

// The part that shmget, semget and msgget have in common: the object of `key`, or a new one.
// `check` looks whether an existing one fits (EINVAL), `make` gives the id of a new one.
template <typename T, typename Check, typename Make>
base::Result<int32_t> GetIpcObject(const IpcTable<T>& table, int32_t key, int32_t flags,
                                   const Credentials& who, Check&& check, Make&& make) {
  constexpr int32_t kCreate = 01000, kExclusive = 02000;
  if (key == kIpcPrivateKey) return make();
  const std::shared_ptr<T> found = table.FindKey(key);
  if (found == nullptr) {
    if ((flags & kCreate) == 0) return base::Errno(ENOENT);
    return make();
  }
  if ((flags & kCreate) != 0 && (flags & kExclusive) != 0) return base::Errno(EEXIST);
  TRY(check(*found));
  TRY(CheckIpcAccess(found->permissions, who, static_cast<uint32_t>(flags)));
  return found->permissions.id;
}

}  // namespace sentry
