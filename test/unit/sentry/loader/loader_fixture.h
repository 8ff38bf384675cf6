#pragma once

// ELF files and scripts in memory, for the loader's tests and its fuzzer. No Catch2 in here.

#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "platform/base/user_addr.h"
#include "sentry/loader/loader.h"
#include "test/support/fake_platform.h"

namespace test {

// A file whose bytes are in a memfd.
class MemoryProgram final : public sentry::ProgramFile, public sentry::Mappable {
 public:
  explicit MemoryProgram(std::string_view content) : fd_(memfd_create("program", MFD_CLOEXEC)) {
    if (write(fd_, content.data(), content.size()) != static_cast<ssize_t>(content.size())) abort();
  }
  ~MemoryProgram() override { close(fd_); }

  base::Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override {
    if (offset > uint64_t{1} << 62) return size_t{0};
    const ssize_t count = pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (count < 0) return base::LastErrno();
    return static_cast<size_t>(count);
  }
  base::Result<size_t> WriteAt(uint64_t, std::span<const std::byte>) override {
    return base::Errno(EROFS);
  }
  base::Result<void> ConfigureMmap(sentry::MmapRequest& request) override {
    request.mappable = self.lock();
    return {};
  }
  sentry::FileRef file() const override { return nullptr; }
  base::Result<sentry::HostRange> Translate(uint64_t offset, uint64_t length, bool) override {
    const uint64_t end = base::PageUp(static_cast<uint64_t>(lseek(fd_, 0, SEEK_END)));
    if (offset >= end) return base::Errno(EFAULT);
    return sentry::HostRange{fd_, offset, std::min(length, end - offset), false};
  }
  void AddMapping(sentry::MemoryManager&, uint64_t, uint64_t, bool) override {}
  void RemoveMapping(sentry::MemoryManager&, uint64_t, uint64_t, bool) override {}
  base::Result<void> Sync(uint64_t, uint64_t) override { return {}; }
  Identity identity() const override { return {1, 1}; }

  std::weak_ptr<MemoryProgram> self;

 private:
  const int fd_;
};

inline std::shared_ptr<MemoryProgram> MakeProgram(std::string_view content) {
  auto program = std::make_shared<MemoryProgram>(content);
  program->self = program;
  return program;
}

class MemoryOpener final : public sentry::ProgramOpener {
 public:
  base::Result<std::shared_ptr<sentry::ProgramFile>> Open(std::string_view path) override {
    auto it = files.find(std::string(path));
    if (it == files.end()) return base::Errno(ENOENT);
    return std::shared_ptr<sentry::ProgramFile>(it->second);
  }
  std::map<std::string, std::shared_ptr<MemoryProgram>> files;
};

class CountingRandom final : public sentry::Random {
 public:
  void Fill(void* data, uint64_t size) override {
    auto* bytes = static_cast<uint8_t*>(data);
    for (uint64_t i = 0; i < size; i++) bytes[i] = next_++;
  }

 private:
  uint8_t next_ = 1;
};

// A small ELF file: change what you like, then Bytes().
struct ElfBuilder {
  ElfBuilder() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_entry = 0x401000;
    header.e_phoff = sizeof(Elf64_Ehdr);
    header.e_ehsize = sizeof(Elf64_Ehdr);
    header.e_phentsize = sizeof(Elf64_Phdr);
  }
  Elf64_Phdr& AddLoad(uint32_t flags, uint64_t offset, uint64_t address, uint64_t file_bytes,
                      uint64_t memory_bytes) {
    Elf64_Phdr segment{};
    segment.p_type = PT_LOAD;
    segment.p_flags = flags;
    segment.p_offset = offset;
    segment.p_vaddr = segment.p_paddr = address;
    segment.p_filesz = file_bytes;
    segment.p_memsz = memory_bytes;
    segment.p_align = 4096;
    segments.push_back(segment);
    return segments.back();
  }
  void AddInterpreter(const std::string& path) {
    Elf64_Phdr segment{};
    segment.p_type = PT_INTERP;
    segment.p_offset = 0x800;
    segment.p_filesz = segment.p_memsz = path.size() + 1;
    segments.push_back(segment);
    interpreter = path;
  }
  std::string Bytes() const {
    std::string bytes(0x3000, 'x');
    Elf64_Ehdr copy = header;
    if (copy.e_phnum == 0) copy.e_phnum = static_cast<Elf64_Half>(segments.size());
    std::memcpy(bytes.data(), &copy, sizeof(copy));
    std::memcpy(bytes.data() + sizeof(copy), segments.data(),
                std::min(segments.size() * sizeof(Elf64_Phdr), size_t{0x700}));
    if (!interpreter.empty()) {
      std::memcpy(bytes.data() + 0x800, interpreter.c_str(), interpreter.size() + 1);
    }
    return bytes;
  }

  Elf64_Ehdr header{};
  std::vector<Elf64_Phdr> segments;
  std::string interpreter;
};

// Text at 0x400000, data and bss behind it.
inline ElfBuilder StaticProgram() {
  ElfBuilder elf;
  elf.AddLoad(PF_R | PF_X, 0, 0x400000, 0x1800, 0x1800);
  elf.AddLoad(PF_R | PF_W, 0x1800, 0x402800, 0x1000, 0x4000);
  return elf;
}

}  // namespace test
