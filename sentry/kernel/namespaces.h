#pragma once

// The namespaces that a task lives in (Linux's nsproxy); the user namespace is in its credentials.
// Immutable once published: unshare(2) and setns(2) make another set.

#include <memory>

#include "sentry/kernel/namespace.h"

namespace sentry {

class CgroupNamespace;
class IpcNamespace;
class MountNamespace;
class NetworkNamespace;
class PidView;
class TimeNamespace;
class UtsNamespace;

struct NamespaceSet {
  std::shared_ptr<MountNamespace> mount;
  std::shared_ptr<UtsNamespace> uts;
  std::shared_ptr<IpcNamespace> ipc;
  std::shared_ptr<NetworkNamespace> network;
  std::shared_ptr<CgroupNamespace> cgroup;
  std::shared_ptr<TimeNamespace> time;
  // What children get.
  std::shared_ptr<TimeNamespace> time_for_children;
  std::shared_ptr<PidView> pid_for_children;
};

using NamespacesRef = std::shared_ptr<const NamespaceSet>;

}  // namespace sentry
