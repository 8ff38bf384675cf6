#pragma once

// A task without guest code: a kernel on the fake platform, and system calls made through the
// dispatcher as the guest's registers would make them. The task has no host thread of its own: the
// test's thread is it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "platform/base/check.h"
#include "platform/memory/memory_pool.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/time/host_clock.h"
#include "syscalls/dispatch.h"
#include "test/support/fake_platform.h"

namespace test {

// Process 2, a child of a process 1 that never runs, alone in its session; root, with all
// capabilities; the working directory is the root of an empty tmpfs.
class TestTask {
 public:
  // One page that may be read and written; the page after it is not mapped.
  static constexpr uint64_t kPage = 0x10000000;
  static constexpr uint64_t kPageEnd = kPage + 4096;
  // 64 KiB more, for what does not fit.
  static constexpr uint64_t kArea = 0x20000000;
  static constexpr uint64_t kAreaBytes = 65536;

  TestTask();
  ~TestTask();
  TestTask(const TestTask&) = delete;
  TestTask& operator=(const TestTask&) = delete;

  // The value, or a negative errno, or a negative restart code.
  template <typename... Args>
  int64_t Call(uint64_t number, Args... args) {
    return CallAs(*task_, number, args...);
  }
  // By another task. Only while that has no host thread.
  template <typename... Args>
  int64_t CallAs(sentry::Task& task, uint64_t number, Args... args) {
    static_assert(sizeof...(Args) <= 6);
    uint64_t registers[6] = {ToRegister(args)...};
    return DispatchAs(task, number, registers);
  }

  template <typename T>
  T Peek(uint64_t address) {
    T value;
    PeekBytes(address, std::as_writable_bytes(std::span<T, 1>(&value, 1)));
    return value;
  }
  template <typename T>
  void Poke(uint64_t address, const T& value) {
    PokeBytes(address, std::as_bytes(std::span<const T, 1>(&value, 1)));
  }
  // With its NUL. Returns `address`.
  uint64_t PokeString(uint64_t address, std::string_view text);
  std::string PeekString(uint64_t address);
  void PeekBytes(uint64_t address, std::span<std::byte> out);
  void PokeBytes(uint64_t address, std::span<const std::byte> data);

  sentry::Task& task() { return *task_; }
  sentry::Kernel& kernel() { return *kernel_; }
  sentry::FdTable& fds() { return task_->fds(); }
  FakePlatform& platform() { return platform_; }
  // A further thread of the task's process / a child process with memory of its own (the pages
  // copied); without a host thread.
  sentry::TaskRef MakeThread();
  sentry::TaskRef MakeChild();
  // Ends a task made by the two above.
  static void Exit(sentry::Task& task, int32_t status);

 private:
  template <typename T>
  static uint64_t ToRegister(T value) {
    if constexpr (std::is_pointer_v<T>) {
      return reinterpret_cast<uint64_t>(value);
    } else if constexpr (std::is_signed_v<T>) {
      return static_cast<uint64_t>(static_cast<int64_t>(value));
    } else {
      return static_cast<uint64_t>(value);
    }
  }
  int64_t DispatchAs(sentry::Task& task, uint64_t number, const uint64_t (&registers)[6]);

  FakePlatform platform_;
  std::unique_ptr<platform::MemoryPool> pool_;
  sentry::HostClock clock_;
  sentry::HostRandom random_;
  syscalls::TableDispatcher dispatcher_{false};
  std::unique_ptr<sentry::Kernel> kernel_;
  sentry::TaskRef init_;
  sentry::TaskRef task_;
};

}  // namespace test
