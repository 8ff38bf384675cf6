#pragma once

// seccomp(2): filters that guest programs put on themselves. They are programs of the guest, run by
// the sentry before a call is dispatched; our own host filters are platform/seccomp.

#include <atomic>
#include <bitset>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "platform/base/result.h"
#include "sentry/kernel/bpf.h"

namespace sentry {

class Task;

// One program and those that were installed before it. Immutable.
class SeccompFilter {
 public:
  // MAX_INSNS_PER_PATH: instructions of a chain, with four for each program.
  static constexpr size_t kChainInstructionsMax = 32768;
  static constexpr uint32_t kNumbersCached = 512;

  // EINVAL: the program is not one. ENOMEM: the chain gets too long.
  static base::Result<std::shared_ptr<const SeccompFilter>> Make(
      std::vector<BpfInstruction> program, std::shared_ptr<const SeccompFilter> previous);
  SeccompFilter(const SeccompFilter&) = delete;
  SeccompFilter& operator=(const SeccompFilter&) = delete;
  ~SeccompFilter();

  // The strictest verdict of the chain, the newest program's among equals.
  uint32_t Verdict(const SeccompWords& data) const;
  // Known without running anything: allowed whatever the arguments.
  bool AlwaysAllows(uint64_t number) const {
    return number < kNumbersCached && always_allowed_[number];
  }
  // True if `other` is this filter or one that it was stacked on, or null.
  bool StandsOn(const SeccompFilter* other) const;
  int depth() const { return depth_; }

 private:
  SeccompFilter(std::vector<BpfInstruction> program, std::shared_ptr<const SeccompFilter> previous);

  const std::vector<BpfInstruction> program_;
  std::shared_ptr<const SeccompFilter> previous_;  // Taken apart by the destructor.
  size_t chain_instructions_ = 0;
  int depth_ = 1;
  std::bitset<kNumbersCached> always_allowed_;
};

// A task's share. The task's own thread reads it at each call, so without a lock; it is written by
// that thread, or by a sibling (SECCOMP_FILTER_FLAG_TSYNC), under the tree lock. Filters are only
// ever added: whatever the task still looks at is held by what replaced it.
struct SeccompState {
  std::atomic<int> mode{0};  // SECCOMP_MODE_*, written after `current`.
  std::atomic<const SeccompFilter*> current{nullptr};
  std::shared_ptr<const SeccompFilter> owner;  // Tree lock.
  std::atomic<bool> no_new_privileges{false};  // From a sibling; the task has yet to take it over.
};

class Seccomp {
 public:
  // How a call that is about to be made goes on: nothing (make it), or the register value that the
  // guest gets instead. The task may have been told to leave, or have a signal to handle.
  static std::optional<int64_t> Check(Task& task, uint64_t number, const uint64_t (&arguments)[6]);

  // EINVAL if the task is in filter mode.
  static base::Result<void> EnterStrictMode(Task& task);
  // For all threads of the process if `all_threads`: then the id of one that has other filters is
  // returned if there is one, and nothing has changed; else 0. EINVAL in strict mode.
  static base::Result<int32_t> AddFilter(Task& task, std::vector<BpfInstruction> program,
                                         bool all_threads);
  // A new task starts with what its parent has. Tree lock held.
  static void InheritLocked(const Task& parent, Task& child);

  // /proc/PID/status. Any thread.
  static int Mode(const Task& task);
  static int Depth(const Task& task);
};

}  // namespace sentry
