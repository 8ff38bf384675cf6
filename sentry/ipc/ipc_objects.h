#pragma once

// What is in one IPC namespace (ipc_namespaces(7)): the System V objects and POSIX queues that its
// processes see, and their limits.

#include <memory>

#include "sentry/ipc/message_queues.h"
#include "sentry/ipc/semaphores.h"
#include "sentry/ipc/shared_memory.h"

namespace sentry {

class Kernel;
class MqueueFileSystem;
class Task;

class IpcObjects {
 public:
  // The kernel outlives it.
  explicit IpcObjects(Kernel& kernel);

  MqueueFileSystem& mqueue() { return *mqueue_; }  // sentry/fs/mqueue
  const std::shared_ptr<MqueueFileSystem>& mqueue_ref() const { return mqueue_; }
  ShmRegistry& shm() { return *shm_; }
  SemRegistry& sem() { return *sem_; }
  MsgRegistry& msg() { return msg_; }

 private:
  const std::shared_ptr<ShmRegistry> shm_;
  const std::shared_ptr<SemRegistry> sem_;
  MsgRegistry msg_;
  const std::shared_ptr<MqueueFileSystem> mqueue_;
};

// Of the task's namespace. Own thread only, which alone can make the task leave it.
IpcObjects& IpcOf(Task& task);
// Of the sandbox's first namespace.
IpcObjects& InitialIpc(Kernel& kernel);

}  // namespace sentry
