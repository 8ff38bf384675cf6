#pragma once

// Guest code for the conformance suite: machine code written as assembler beside the test, copied
// into a page of the pool, run on either platform.

#include <signal.h>
#include <sys/mman.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "platform/memory/memory_pool.h"
#include "platform/platform.h"
#include "platform/platform_factory.h"

// Last: it has a CHECK of its own.
#include "catch2/catch.hpp"

// Defines a function `name()` that returns the bytes of `text`.
#define GUEST_CODE(name, text)                                             \
  asm(".pushsection .rodata\n" #name "_begin:\n" text "\n" #name           \
      "_end:\n"                                                            \
      ".popsection\n");                                                    \
  extern "C" const char name##_begin[], name##_end[];                      \
  inline std::string_view name() {                                         \
    return {name##_begin, static_cast<size_t>(name##_end - name##_begin)}; \
  }

namespace test {

inline constexpr uint64_t kPage = 4096;
inline constexpr uint64_t kCode = 0x400000;  // One page, read and execute.
inline constexpr uint64_t kData = 0x500000;  // Four pages, read and write.
inline constexpr uint64_t kDataBytes = 4 * kPage;
inline constexpr uint64_t kStackTop = kData + kDataBytes;

// A pool and a platform; made once per kind, since Linux makes a process for it.
class Machine {
 public:
  explicit Machine(platform::PlatformKind kind) : pool_(platform::MemoryPool::Create().value()) {
    auto made = platform::CreatePlatform(kind, *pool_);
    INFO(made.status().ToString());
    REQUIRE(made.ok());
    platform_ = *std::move(made);
  }
  platform::MemoryPool& pool() { return *pool_; }
  platform::Platform& platform() { return *platform_; }

  static Machine& Of(platform::PlatformKind kind) {
    static Machine systrap(platform::PlatformKind::kSystrap);
    static Machine ptrace(platform::PlatformKind::kPtrace);
    return kind == platform::PlatformKind::kSystrap ? systrap : ptrace;
  }

 private:
  std::unique_ptr<platform::MemoryPool> pool_;
  std::unique_ptr<platform::Platform> platform_;
};

// One address space with code and data, and one thread in it.
class Guest {
 public:
  explicit Guest(Machine& machine, std::string_view code = {})
      : machine_(machine),
        code_(machine.pool().Allocate(kPage).value()),
        data_(machine.pool().Allocate(kDataBytes).value()),
        space_(machine.platform().NewAddressSpace().value()),
        context_(machine.platform().NewContext().value()) {
    memcpy(machine.pool().Window(code_).data(), code.data(), code.size());
    REQUIRE(space_
                ->Map({.address = kCode,
                       .length = kPage,
                       .host_fd = machine.pool().fd(),
                       .offset = code_.start,
                       .protection = PROT_READ | PROT_EXEC})
                .ok());
    REQUIRE(space_
                ->Map({.address = kData,
                       .length = kDataBytes,
                       .host_fd = machine.pool().fd(),
                       .offset = data_.start,
                       .protection = PROT_READ | PROT_WRITE})
                .ok());
  }
  ~Guest() {
    context_.reset();
    space_.reset();
    machine_.pool().DropReference(code_);
    machine_.pool().DropReference(data_);
  }
  Guest(const Guest&) = delete;
  Guest& operator=(const Guest&) = delete;

  platform::Registers Start() const {
    platform::Registers registers;
    registers.rip = kCode;
    registers.rsp = kStackTop;
    return registers;
  }
  platform::Event Switch(platform::Registers& registers) {
    return context_->Switch(*space_, registers);
  }
  template <typename T>
  T* Data(uint64_t address = kData) {
    return reinterpret_cast<T*>(machine_.pool().Window(data_).data() + (address - kData));
  }
  platform::PoolRange data_range() const { return data_; }
  platform::PoolRange code_range() const { return code_; }
  platform::AddressSpace& space() { return *space_; }
  platform::Context& context() { return *context_; }
  Machine& machine() { return machine_; }
  std::unique_ptr<platform::AddressSpace> TakeSpace() { return std::move(space_); }

 private:
  Machine& machine_;
  platform::PoolRange code_;
  platform::PoolRange data_;
  std::unique_ptr<platform::AddressSpace> space_;
  std::unique_ptr<platform::Context> context_;
};

}  // namespace test
