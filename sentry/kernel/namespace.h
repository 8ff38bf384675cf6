#pragma once

// What namespaces of all kinds share (namespaces(7)): a number by which /proc/PID/ns shows them,
// and the user namespace whose capabilities rule them.

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace sentry {

class UserNamespace;
// Null is the initial user namespace: what most tasks live in needs no object, and is told from
// all others by one comparison.
using UserNamespaceRef = std::shared_ptr<UserNamespace>;

// The CLONE_NEW* flag of its kind.
enum class NamespaceKind : uint64_t {
  kMount = 0x00020000,
  kCgroup = 0x02000000,
  kUts = 0x04000000,
  kIpc = 0x08000000,
  kUser = 0x10000000,
  kPid = 0x20000000,
  kNet = 0x40000000,
  kTime = 0x00000080,
};

// Numbers of the initial namespaces, as Linux has them (include/linux/proc_ns.h).
inline constexpr uint32_t kInitialIpcNumber = 0xEFFFFFFFU;
inline constexpr uint32_t kInitialUtsNumber = 0xEFFFFFFEU;
inline constexpr uint32_t kInitialUserNumber = 0xEFFFFFFDU;
inline constexpr uint32_t kInitialPidNumber = 0xEFFFFFFCU;
inline constexpr uint32_t kInitialCgroupNumber = 0xEFFFFFFBU;
inline constexpr uint32_t kInitialTimeNumber = 0xEFFFFFFAU;

// The next number for one that is made while the sandbox runs.
uint32_t AllocateNamespaceNumber();

class Namespace : public std::enable_shared_from_this<Namespace> {
 public:
  // `number` 0: a new one.
  Namespace(NamespaceKind kind, UserNamespaceRef owner, uint32_t number = 0)
      : kind_(kind),
        number_(number != 0 ? number : AllocateNamespaceNumber()),
        owner_(std::move(owner)) {}
  Namespace(const Namespace&) = delete;
  Namespace& operator=(const Namespace&) = delete;
  virtual ~Namespace();

  // Counts in `count` from now until it goes (namespace_counts.h). False if there are `max`.
  bool CountIn(const std::shared_ptr<std::atomic<int64_t>>& count, int64_t max);
  NamespaceKind kind() const { return kind_; }
  uint32_t number() const { return number_; }
  // Null: the initial one. Of a user namespace: its parent.
  const UserNamespaceRef& owner() const { return owner_; }

 private:
  const NamespaceKind kind_;
  const uint32_t number_;
  const UserNamespaceRef owner_;
  std::shared_ptr<std::atomic<int64_t>> count_;  // Null: not counted.
};

// The inode of a file that names a namespace (sentry/fs/nsfs) is one of these, too.
class NamespaceFile {
 public:
  virtual ~NamespaceFile() = default;
  virtual const std::shared_ptr<Namespace>& shown_namespace() const = 0;
};

}  // namespace sentry
