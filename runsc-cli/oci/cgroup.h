#pragma once

// The container's control groups, by file: v1 (a hierarchy per controller), v2 (one), or both
// (hybrid: what v2 has, the rest on v1). The whole sandbox lives in them: sentry, gofer, stubs,
// supervisor, so their limits bound the guest's memory and CPU as those of any process.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runsc-cli/oci/spec.h"

namespace oci {

struct Cgroups {
  std::vector<std::string> made;    // Directories that go with the container.
  std::vector<size_t> mount_sizes;  // How much of each is where its hierarchy is mounted.
  Pairs paths;                      // Controller ("" for v2) to directory.
  std::string warning;              // Why there are none, where that is no failure.

  const std::string* Find(const std::string& controller) const;
};

// What will be made: to be on record before it is.
absl::StatusOr<Cgroups> PlanCgroups(const std::string& cgroups_path, const std::string& id);
// Makes the directories. `required`: the configuration asks for a path or limits, so a failure is
// one; otherwise (and always when rootless) it is a warning, and there are none.
absl::Status MakeCgroups(Cgroups& cgroups, bool required);
// Puts the calling process into them.
absl::Status EnterCgroups(const Cgroups& cgroups);
absl::Status ApplyResources(const Cgroups& cgroups, const Resources& resources);
// Kills what is left in them and removes them.
void RemoveCgroups(const std::vector<std::string>& made);
// Host pids, sorted.
std::vector<int32_t> CgroupPids(const Cgroups& cgroups);

// What `events --stats` prints as "data", without the guest's own numbers.
Json CgroupStats(const Cgroups& cgroups);
// Processes killed for lack of memory so far; 0 if unknown.
uint64_t OomKills(const Cgroups& cgroups);
// The limit of memory in force; 0 if none.
uint64_t MemoryLimit(const Cgroups& cgroups);

}  // namespace oci
