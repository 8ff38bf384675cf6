#pragma once

// A MemoryManager over the fake platform, and a guest that touches its memory byte by byte.

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "catch2/catch.hpp"
#include "sentry/mm/io_buffer.h"
#include "sentry/mm/mapping_registry.h"
#include "sentry/mm/memory_manager.h"
#include "test/support/fake_platform.h"

namespace test {

using base::UserAddr;
using sentry::FaultSignal;
using sentry::MemoryManager;
using sentry::MmapRequest;

inline constexpr uint64_t kPage = 4096;

// A file on the host, mapped by descriptor, as a gofer's.
class HostFile final : public sentry::Mappable {
 public:
  explicit HostFile(std::string_view content) : fd_(memfd_create("test", MFD_CLOEXEC)) {
    REQUIRE(pwrite(fd_, content.data(), content.size(), 0) == static_cast<ssize_t>(content.size()));
  }
  ~HostFile() override { close(fd_); }

  base::Result<sentry::HostRange> Translate(uint64_t offset, uint64_t length, bool) override {
    if (translate_error != 0) return base::Errno(translate_error);
    const uint64_t end = base::PageUp(size());
    if (offset >= end) return base::Errno(EFAULT);
    return sentry::HostRange{fd_, offset, std::min(length, end - offset), false};
  }
  base::Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override {
    const ssize_t count = pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0) return base::LastErrno();
    return static_cast<size_t>(count);
  }
  base::Result<size_t> WriteAt(uint64_t offset, std::span<const std::byte> data) override {
    const ssize_t count = pwrite(fd_, data.data(), data.size(), static_cast<off_t>(offset));
    if (count < 0) return base::LastErrno();
    return static_cast<size_t>(count);
  }
  void AddMapping(MemoryManager& memory, uint64_t offset, uint64_t length, bool writable) override {
    registry.Add(memory, offset, length, writable);
  }
  void RemoveMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                     bool writable) override {
    registry.Remove(memory, offset, length, writable);
  }
  base::Result<void> Sync(uint64_t, uint64_t) override {
    syncs++;
    return {};
  }
  Identity identity() const override { return {7, 1234}; }

  uint64_t size() const { return static_cast<uint64_t>(lseek(fd_, 0, SEEK_END)); }
  void Truncate(uint64_t bytes) {
    REQUIRE(ftruncate(fd_, static_cast<off_t>(bytes)) == 0);
    registry.Truncate(*this, bytes);
  }
  std::string Content() const {
    std::string text(size(), '\0');
    REQUIRE(pread(fd_, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
    return text;
  }
  int fd() const { return fd_; }

  sentry::MappingRegistry registry;
  int syncs = 0;
  int translate_error = 0;

 private:
  const int fd_;
};

// One guest process.
struct Guest {
  explicit Guest(std::shared_ptr<MemoryManager> manager) : memory(std::move(manager)) {}

  FakeAddressSpace& space() { return static_cast<FakeAddressSpace&>(memory->address_space()); }

  // Loads and stores as a CPU does: fault, resolve, again. nullopt (or the signal) if the guest
  // would be killed.
  std::optional<FaultSignal> last_fault;
  std::optional<uint8_t> Load(uint64_t address) {
    last_fault.reset();
    for (int attempt = 0; attempt < 3; attempt++) {
      if (std::optional<uint8_t> byte = space().Load(address)) return byte;
      faults++;
      last_fault = memory->HandleFault(address, platform::kAccessRead);
      if (last_fault.has_value()) return std::nullopt;
    }
    FAIL("a load faults for ever");
    return std::nullopt;
  }
  bool Store(uint64_t address, uint8_t value) {
    last_fault.reset();
    for (int attempt = 0; attempt < 3; attempt++) {
      if (space().Store(address, value)) return true;
      faults++;
      last_fault = memory->HandleFault(address, platform::kAccessWrite);
      if (last_fault.has_value()) return false;
    }
    FAIL("a store faults for ever");
    return false;
  }

  uint64_t Map(uint64_t length, int protection = PROT_READ | PROT_WRITE,
               int flags = MAP_PRIVATE | MAP_ANONYMOUS, uint64_t address = 0) {
    MmapRequest request;
    request.address = address;
    request.length = length;
    request.protection = protection;
    request.flags = flags;
    const base::Result<uint64_t> mapped = memory->Mmap(request);
    REQUIRE(mapped.ok());
    return mapped.value();
  }
  uint64_t MapFile(const std::shared_ptr<HostFile>& file, uint64_t length, int protection,
                   int flags, uint64_t offset = 0) {
    MmapRequest request;
    request.length = length;
    request.protection = protection;
    request.flags = flags;
    request.offset = offset;
    request.mappable = file;
    const base::Result<uint64_t> mapped = memory->Mmap(request);
    REQUIRE(mapped.ok());
    return mapped.value();
  }
  // Errno of an mmap, 0 if it succeeds.
  int MapError(uint64_t address, uint64_t length, int flags,
               int protection = PROT_READ | PROT_WRITE) {
    MmapRequest request;
    request.address = address;
    request.length = length;
    request.protection = protection;
    request.flags = flags;
    const base::Result<uint64_t> mapped = memory->Mmap(request);
    return mapped.ok() ? 0 : mapped.error().value();
  }
  void Write(uint64_t address, std::string_view text) {
    REQUIRE(memory->CopyOutExactly(UserAddr(address), std::as_bytes(std::span(text))).ok());
  }
  std::string Read(uint64_t address, size_t length) {
    std::string text(length, '?');
    const base::Result<size_t> count = memory->CopyInBytes(
        UserAddr(address), std::as_writable_bytes(std::span(text.data(), text.size())));
    text.resize(count.ok() ? count.value() : 0);
    return text;
  }

  std::shared_ptr<MemoryManager> memory;
  int faults = 0;
};

inline int ErrorOf(const base::Result<void>& result) {
  return result.ok() ? 0 : result.error().value();
}
template <typename T>
int ErrorOf(const base::Result<T>& result) {
  return result.ok() ? 0 : result.error().value();
}

struct Sandbox {
  Sandbox() {
    base::Result<std::unique_ptr<platform::MemoryPool>> made =
        platform::MemoryPool::Create(uint64_t{1} << 40);
    REQUIRE(made.ok());
    pool = std::move(made).value();
  }
  ~Sandbox() {
    if (pool != nullptr) CHECK(pool->allocated_bytes() == 0);
  }
  Guest NewGuest() {
    auto memory = MemoryManager::Create(platform, *pool, 0);
    REQUIRE(memory.ok());
    return Guest(std::move(memory).value());
  }
  Guest Fork(Guest& parent) {
    auto memory = parent.memory->Fork();
    REQUIRE(memory.ok());
    return Guest(std::move(memory).value());
  }

  FakePlatform platform;
  std::unique_ptr<platform::MemoryPool> pool;
};

}  // namespace test
