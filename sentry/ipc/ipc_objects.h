#pragma once

// One IPC namespace (ipc_namespaces(7)): the System V objects and POSIX queues that its processes
// see, and their limits.

#include <memory>

#include "platform/memory/memory_pool.h"
#include "sentry/ipc/message_queues.h"
#include "sentry/ipc/semaphores.h"
#include "sentry/ipc/shared_memory.h"
#include "sentry/time/clock.h"

namespace sentry {

class Kernel;
class MqueueFileSystem;
class Task;
struct NamespaceSet;

class IpcObjects {
 public:
  // Both outlive it.
  IpcObjects(platform::MemoryPool& pool, const Clock& clock)
      : shm_(std::make_shared<ShmRegistry>(pool, clock)),
        sem_(std::make_shared<SemRegistry>(clock)),
        msg_(clock) {}

  // sentry/fs/mqueue.
  MqueueFileSystem& mqueue() { return *mqueue_; }
  const std::shared_ptr<MqueueFileSystem>& mqueue_ref() const { return mqueue_; }
  void set_mqueue(std::shared_ptr<MqueueFileSystem> mqueue) { mqueue_ = std::move(mqueue); }

  ShmRegistry& shm() { return *shm_; }
  SemRegistry& sem() { return *sem_; }
  MsgRegistry& msg() { return msg_; }

 private:
  const std::shared_ptr<ShmRegistry> shm_;
  const std::shared_ptr<SemRegistry> sem_;
  MsgRegistry msg_;
  std::shared_ptr<MqueueFileSystem> mqueue_;
};

// Those of the namespace in the set, which keeps them; made by the first call.
IpcObjects& IpcObjectsOf(Kernel& kernel, const NamespaceSet& namespaces);
// Of the task's namespace, on its own thread.
IpcObjects& IpcObjectsOf(Task& task);

}  // namespace sentry
