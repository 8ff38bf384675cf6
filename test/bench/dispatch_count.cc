// The same system call many times, dispatched on a task that has no guest: a program for
// callgrind, which counts the sentry's instructions. See test/bench/instructions.
//
//   dispatch_count NAME COUNT

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "absl/synchronization/mutex.h"
#include "test/support/test_task.h"

namespace {

using test::TestTask;

struct Operation {
  const char* name;
  // Prepares, and returns what is done once.
  std::function<void()> (*make)(TestTask& task);
};

int64_t Must(int64_t result, const char* what) {
  if (result >= 0) return result;
  fprintf(stderr, "dispatch_count: %s: %s\n", what, strerror(static_cast<int>(-result)));
  exit(1);
}

int64_t NewFile(TestTask& task) {
  task.PokeString(TestTask::kPage, "file");
  const int64_t fd = Must(
      task.Call(SYS_openat, AT_FDCWD, TestTask::kPage, O_RDWR | O_CREAT | O_TRUNC, 0600), "openat");
  Must(task.Call(SYS_pwrite64, fd, TestTask::kArea, 8192, 0), "pwrite");
  return fd;
}

const Operation kOperations[] = {
    {"getppid",
     [](TestTask& task) -> std::function<void()> { return [&] { task.Call(SYS_getppid); }; }},
    {"sched_getparam",
     [](TestTask& task) -> std::function<void()> {
       return [&] { Must(task.Call(SYS_sched_getparam, 0, TestTask::kPage), "sched_getparam"); };
     }},
    {"fstat",
     [](TestTask& task) -> std::function<void()> {
       const int64_t fd = NewFile(task);
       return [&task, fd] { Must(task.Call(SYS_fstat, fd, TestTask::kArea), "fstat"); };
     }},
    {"stat",
     [](TestTask& task) -> std::function<void()> {
       NewFile(task);
       return [&task] {
         Must(task.Call(SYS_newfstatat, AT_FDCWD, TestTask::kPage, TestTask::kArea, 0), "stat");
       };
     }},
    {"open_close",
     [](TestTask& task) -> std::function<void()> {
       NewFile(task);
       return [&task] {
         const int64_t fd =
             Must(task.Call(SYS_openat, AT_FDCWD, TestTask::kPage, O_RDONLY, 0), "openat");
         Must(task.Call(SYS_close, fd), "close");
       };
     }},
    {"create_unlink",
     [](TestTask& task) -> std::function<void()> {
       task.PokeString(TestTask::kPage, "new");
       return [&task] {
         const int64_t fd = Must(
             task.Call(SYS_openat, AT_FDCWD, TestTask::kPage, O_WRONLY | O_CREAT, 0600), "openat");
         Must(task.Call(SYS_close, fd), "close");
         Must(task.Call(SYS_unlinkat, AT_FDCWD, TestTask::kPage, 0), "unlinkat");
       };
     }},
    {"read_4k",
     [](TestTask& task) -> std::function<void()> {
       const int64_t fd = NewFile(task);
       return [&task, fd] { Must(task.Call(SYS_pread64, fd, TestTask::kArea, 4096, 0), "pread"); };
     }},
    {"write_4k",
     [](TestTask& task) -> std::function<void()> {
       const int64_t fd = NewFile(task);
       return
           [&task, fd] { Must(task.Call(SYS_pwrite64, fd, TestTask::kArea, 4096, 0), "pwrite"); };
     }},
    {"pipe_byte",
     [](TestTask& task) -> std::function<void()> {
       Must(task.Call(SYS_pipe2, TestTask::kPage, 0), "pipe2");
       const auto fds = task.Peek<std::array<int32_t, 2>>(TestTask::kPage);
       return [&task, fds] {
         Must(task.Call(SYS_write, fds[1], TestTask::kArea, 1), "write");
         Must(task.Call(SYS_read, fds[0], TestTask::kArea, 1), "read");
       };
     }},
    {"mmap_munmap",
     [](TestTask& task) -> std::function<void()> {
       return [&task] {
         const int64_t at = Must(task.Call(SYS_mmap, 0, 65536, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                                 "mmap");
         Must(task.Call(SYS_munmap, at, 65536), "munmap");
       };
     }},
};

}  // namespace

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (const Operation& operation : kOperations) puts(operation.name);
    return 0;
  }
  const int count = argc == 3 ? atoi(argv[2]) : 0;
  for (const Operation& operation : kOperations) {
    if (count <= 0 || strcmp(operation.name, argv[1]) != 0) continue;
    TestTask task;
    const std::function<void()> once = operation.make(task);
    for (int i = 0; i < count; ++i) once();
    return 0;
  }
  fprintf(stderr, "usage: dispatch_count NAME COUNT, or --list\n");
  return 2;
}
