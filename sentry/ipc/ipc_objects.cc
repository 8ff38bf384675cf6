#include "sentry/ipc/ipc_objects.h"

#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/small_namespaces.h"
#include "sentry/kernel/task.h"

namespace sentry {

IpcObjects& IpcObjectsOf(Kernel& kernel, const NamespaceSet& namespaces) {
  return *namespaces.ipc->Get<IpcObjects>(IpcNamespace::kSystemV, [&kernel] {
    auto objects = std::make_shared<IpcObjects>(kernel.pool(), kernel.clock());
    objects->set_mqueue(MqueueFileSystem::Make(kernel));
    return objects;
  });
}

IpcObjects& IpcObjectsOf(Task& task) { return IpcObjectsOf(task.kernel(), task.own_namespaces()); }

}  // namespace sentry
