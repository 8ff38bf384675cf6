// NUMA policy of a machine with one node (set_mempolicy(2), mbind(2)): arguments are checked as
// Linux does, and every policy means the same.

#include <linux/capability.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <vector>

#include "sentry/kernel/task.h"
#include "syscalls/handlers/memory.h"

namespace syscalls {

using base::Errno;
using base::kPageSize;
using base::PageUp;
using base::Result;
using base::UserAddr;
using sentry::Task;

namespace {

constexpr int32_t kModeMax = 7;  // MPOL_MAX of 6.9: up to weighted interleave.
constexpr int32_t kModeFlags = MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES | MPOL_F_NUMA_BALANCING;
constexpr uint64_t kNodesMax = 1024;  // CONFIG_NODES_SHIFT 10
constexpr uint64_t kBitsPerWord = 64;

// The nodes asked for: whether any, and whether node 0 is among them.
struct NodeMask {
  bool empty = true;
  bool has_node = false;
};

Result<NodeMask> CopyInNodes(Task& task, UserAddr mask, uint64_t nodes_max) {
  NodeMask nodes;
  nodes_max--;  // Linux's off-by-one.
  if (mask.is_null() || nodes_max == 0) return nodes;
  if (nodes_max > kPageSize * 8) return Errno(EINVAL);
  const uint64_t words = (nodes_max + kBitsPerWord - 1) / kBitsPerWord;
  std::vector<uint64_t> bits = TRY(task.memory().CopyInArray<uint64_t>(mask, words));
  if (nodes_max % kBitsPerWord != 0) bits.back() &= (uint64_t{1} << nodes_max % kBitsPerWord) - 1;
  for (uint64_t word = 0; word < words; word++) {
    if (bits[word] == 0) continue;
    if (word >= kNodesMax / kBitsPerWord) return Errno(EINVAL);
    nodes.empty = false;
  }
  nodes.has_node = (bits[0] & 1) != 0;
  return nodes;
}

Result<void> CheckPolicy(int32_t mode_and_flags, const NodeMask& nodes) {
  const int32_t flags = mode_and_flags & kModeFlags;
  const int32_t mode = mode_and_flags & ~kModeFlags;
  if (mode < 0 || mode >= kModeMax) return Errno(EINVAL);
  if ((flags & MPOL_F_STATIC_NODES) != 0 && (flags & MPOL_F_RELATIVE_NODES) != 0)
    return Errno(EINVAL);
  if ((flags & MPOL_F_NUMA_BALANCING) != 0 && mode != MPOL_BIND) return Errno(EINVAL);
  switch (mode) {
    case MPOL_DEFAULT:
      return nodes.empty ? Result<void>() : Errno(EINVAL);
    case MPOL_LOCAL:
      return nodes.empty && flags == 0 ? Result<void>() : Errno(EINVAL);
    case MPOL_PREFERRED:
      if (nodes.empty) return flags == 0 ? Result<void>() : Errno(EINVAL);
      break;
    default:
      if (nodes.empty) return Errno(EINVAL);
  }
  return nodes.has_node ? Result<void>() : Errno(EINVAL);
}

Result<void> CopyOutNodes(Task& task, UserAddr mask, uint64_t nodes_max, bool has_node) {
  const uint64_t bytes = (nodes_max - 1 + kBitsPerWord - 1) / kBitsPerWord * sizeof(uint64_t);
  if (bytes > kPageSize) return Errno(EINVAL);
  std::vector<uint64_t> bits(bytes / sizeof(uint64_t), 0);
  if (!bits.empty()) bits[0] = has_node ? 1 : 0;
  return task.memory().CopyOutArray<uint64_t>(mask, bits);
}

}  // namespace

Result<void> GetMempolicy(Task& task, UserAddr mode, UserAddr mask, uint64_t nodes_max,
                          uint64_t address, uint64_t flags) {
  constexpr uint64_t kKnown = MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED;
  if (!mask.is_null() && nodes_max < 1) return Errno(EINVAL);
  if ((flags & ~kKnown) != 0) return Errno(EINVAL);
  if ((flags & MPOL_F_MEMS_ALLOWED) != 0) {
    if ((flags & (MPOL_F_NODE | MPOL_F_ADDR)) != 0) return Errno(EINVAL);
  } else if ((flags & MPOL_F_ADDR) != 0) {
    if (!task.memory().IsMapped(address, 1)) return Errno(EFAULT);
  } else if (address != 0 || (flags & MPOL_F_NODE) != 0) {
    return Errno(EINVAL);
  }
  // The default policy; or, with MPOL_F_NODE, the only node.
  const int32_t answer = 0;
  if (!mode.is_null()) TRY(task.CopyOut(base::UserOut<int32_t>(mode), answer));
  if (mask.is_null()) return {};
  return CopyOutNodes(task, mask, nodes_max, (flags & MPOL_F_MEMS_ALLOWED) != 0);
}

Result<void> SetMempolicy(Task& task, int32_t mode, UserAddr mask, uint64_t nodes_max) {
  const int32_t plain = mode & ~kModeFlags;
  if (plain < 0 || plain >= kModeMax) return Errno(EINVAL);
  return CheckPolicy(mode, TRY(CopyInNodes(task, mask, nodes_max)));
}

Result<void> Mbind(Task& task, uint64_t address, uint64_t length, uint64_t mode, UserAddr mask,
                   uint64_t nodes_max, uint32_t flags) {
  const auto policy = static_cast<int32_t>(mode);
  const int32_t plain = policy & ~kModeFlags;
  if (plain < 0 || plain >= kModeMax) return Errno(EINVAL);
  const NodeMask nodes = TRY(CopyInNodes(task, mask, nodes_max));
  if ((flags & ~uint32_t{MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL}) != 0)
    return Errno(EINVAL);
  if ((flags & MPOL_MF_MOVE_ALL) != 0 && !task.own_credentials().HasCapability(CAP_SYS_NICE))
    return Errno(EPERM);
  if (address % kPageSize != 0) return Errno(EINVAL);
  const uint64_t bytes = length > ~uint64_t{0} - kPageSize ? 0 : PageUp(length);
  if (address + bytes < address) return Errno(EINVAL);
  if (bytes == 0) return {};
  TRY(CheckPolicy(policy, nodes));
  if (!task.memory().IsMapped(address, bytes)) return Errno(EFAULT);
  return {};
}

}  // namespace syscalls
