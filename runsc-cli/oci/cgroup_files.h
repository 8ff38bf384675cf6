#pragma once

// The files of a control group. Private to cgroup.cc and cgroup_stats.cc.

#include <string>

namespace oci {

// All of the file; what cannot be read is empty.
std::string ControlText(const std::string& path);

}  // namespace oci
