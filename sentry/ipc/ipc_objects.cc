#include "sentry/ipc/ipc_objects.h"

#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/small_namespaces.h"
#include "sentry/kernel/task.h"

namespace sentry {

IpcObjects::IpcObjects(Kernel& kernel)
    : shm_(std::make_shared<ShmRegistry>(kernel.pool(), kernel.clock())),
      sem_(std::make_shared<SemRegistry>(kernel.clock())),
      msg_(kernel.clock()),
      mqueue_(MqueueFileSystem::Make(kernel)) {}

IpcObjects& IpcNamespace::objects(Kernel& kernel) {
  const absl::MutexLock lock(&mu_);
  if (objects_ == nullptr) objects_ = std::make_shared<IpcObjects>(kernel);
  return *objects_;
}

IpcObjects& IpcOf(Task& task) { return task.own_namespaces().ipc->objects(task.kernel()); }

IpcObjects& InitialIpc(Kernel& kernel) { return kernel.initial_namespaces()->ipc->objects(kernel); }

}  // namespace sentry
