// Filling a new address space: segments as load_elf_binary (fs/binfmt_elf.c, Linux 6.12) places
// them, then the stack with strings, auxiliary vector and pointers in the order that programs rely
// on.

#include <elf.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "platform/base/user_addr.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/loader/elf_image.h"
#include "sentry/loader/loader.h"
#include "sentry/loader/vdso.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::PageDown;
using base::PageUp;
using base::Result;
using base::UserAddr;

namespace {

constexpr uint64_t kClockTicks = 100;
constexpr char kPlatform[] = "x86_64";
// Where position-independent programs with an interpreter go: two thirds up.
constexpr uint64_t kDynamicBase = 0x5555'5555'4000;
constexpr uint64_t kMmapRandomPages = uint64_t{1} << 28;
constexpr uint64_t kStackRandomPages = uint64_t{1} << 22;
constexpr uint64_t kBrkRandomBytes = uint64_t{1} << 30;
constexpr uint64_t kStackTopRandomBytes = 8192;
constexpr uint64_t kStackRoom = 128 * 1024;  // Mapped below what execve writes.

#ifndef AT_MINSIGSTKSZ
#define AT_MINSIGSTKSZ 51
#endif

int Protection(uint32_t flags) {
  int protection = 0;
  if ((flags & PF_R) != 0) protection |= PROT_READ;
  if ((flags & PF_W) != 0) protection |= PROT_WRITE;
  if ((flags & PF_X) != 0) protection |= PROT_EXEC;
  return protection;
}

uint64_t PageOffset(uint64_t address) { return address % kPageSize; }

// Segments of one ELF file, going into `memory`.
class ImageLoader {
 public:
  ImageLoader(MemoryManager& memory, ProgramFile& file, const ElfImage& elf)
      : memory_(memory), file_(file), elf_(elf) {}

  // Places the image: at a fixed place (`bias` for relocatable ones; with `replace` false whatever
  // is there stays and it is EEXIST), or where there is room if `anywhere`.
  Result<void> Load(uint64_t wanted_bias, bool anywhere);

  uint64_t bias() const { return bias_; }
  uint64_t entry() const { return elf_.header.e_entry + bias_; }
  // Address of the program headers in memory; 0 if no segment holds them.
  uint64_t headers() const { return headers_ == 0 ? 0 : headers_ + bias_; }
  uint64_t brk() const { return end_; }
  uint64_t start_code = ~uint64_t{0}, end_code = 0, start_data = 0, end_data = 0;

 private:
  // One PT_LOAD at `address` (bias included). `total`: bytes to find room for, if not fixed. Yields
  // where its page went.
  Result<uint64_t> MapSegment(const Elf64_Phdr& segment, uint64_t address, int flags,
                              uint64_t total);
  Result<uint64_t> MapFile(const Elf64_Phdr& segment, uint64_t address, int flags, uint64_t total);
  Result<void> Account(const Elf64_Phdr& segment);

  MemoryManager& memory_;
  ProgramFile& file_;
  const ElfImage& elf_;
  uint64_t bias_ = 0;
  uint64_t headers_ = 0;
  uint64_t end_ = 0;
};

Result<uint64_t> ImageLoader::MapFile(const Elf64_Phdr& segment, uint64_t address, int flags,
                                      uint64_t total) {
  const uint64_t in_page = PageOffset(segment.p_vaddr);
  uint64_t size = 0;
  if (__builtin_add_overflow(segment.p_filesz, in_page, &size) || size > memory_.address_max()) {
    return Errno(ENOMEM);
  }
  size = PageUp(size);
  const uint64_t offset = segment.p_offset - in_page;
  if (offset % kPageSize != 0 || offset > ~uint64_t{0} - size) return Errno(EINVAL);
  if (offset > static_cast<uint64_t>(LLONG_MAX) - size) return Errno(EOVERFLOW);
  MmapRequest request;
  request.address = PageDown(address);
  request.length = size;
  request.protection = Protection(segment.p_flags);
  request.flags = MAP_PRIVATE | flags;
  request.offset = offset;
  if (total > size) {
    // Room for all of it first, so that the other segments find their places free.
    MmapRequest room;
    room.address = request.address;
    room.length = PageUp(total);
    room.protection = PROT_NONE;
    room.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags;
    request.address = TRY(memory_.Mmap(room));
    TRY(memory_.Munmap(request.address, room.length));
    request.flags = MAP_PRIVATE | MAP_FIXED;
  }
  TRY(file_.ConfigureMmap(request));
  return memory_.Mmap(request);
}

Result<uint64_t> ImageLoader::MapSegment(const Elf64_Phdr& segment, uint64_t address, int flags,
                                         uint64_t total) {
  const int protection = Protection(segment.p_flags);
  const uint64_t in_page = PageOffset(segment.p_vaddr);
  uint64_t mapped = PageDown(address);
  uint64_t zero_start = mapped;
  if (segment.p_filesz > 0) {
    mapped = TRY(MapFile(segment, address, flags, total));
    zero_start = mapped + in_page + segment.p_filesz;
    if (segment.p_memsz > segment.p_filesz && PageOffset(zero_start) != 0) {
      const std::array<std::byte, kPageSize> zeroes{};
      const Result<void> cleared = memory_.CopyOutExactly(
          UserAddr(zero_start), std::span(zeroes).first(kPageSize - PageOffset(zero_start)));
      if (!cleared.ok() && (protection & PROT_WRITE) != 0) return Errno(EFAULT);
    }
  }
  if (segment.p_memsz <= segment.p_filesz) return mapped;
  uint64_t zero_end = 0;
  if (__builtin_add_overflow(mapped + in_page, segment.p_memsz, &zero_end) ||
      zero_end > memory_.address_max()) {
    return Errno(ENOMEM);
  }
  zero_start = PageUp(zero_start);
  zero_end = PageUp(zero_end);
  if (zero_end <= zero_start) return mapped;
  MmapRequest bss;
  bss.address = zero_start;
  bss.length = zero_end - zero_start;
  bss.protection = PROT_READ | PROT_WRITE | (protection & PROT_EXEC);
  bss.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  TRY(memory_.Mmap(bss));
  return mapped;
}

// Bounds of code, data and break; refuses what no address space holds.
Result<void> ImageLoader::Account(const Elf64_Phdr& segment) {
  const uint64_t start = segment.p_vaddr;
  const uint64_t task_size = memory_.address_max();
  if (start >= task_size || segment.p_filesz > segment.p_memsz || segment.p_memsz > task_size ||
      task_size - segment.p_memsz < start) {
    return Errno(EINVAL);
  }
  const uint64_t header_offset = elf_.header.e_phoff;
  if (segment.p_offset <= header_offset && header_offset - segment.p_offset < segment.p_filesz) {
    headers_ = header_offset - segment.p_offset + start;
  }
  const uint64_t file_end = start + segment.p_filesz;
  if ((segment.p_flags & PF_X) != 0) {
    start_code = std::min(start_code, start);
    end_code = std::max(end_code, file_end);
  }
  start_data = std::max(start_data, start);
  end_data = std::max(end_data, file_end);
  end_ = std::max(end_, start + segment.p_memsz);
  return {};
}

Result<void> ImageLoader::Load(uint64_t wanted_bias, bool anywhere) {
  const uint64_t total = TotalMappingSize(elf_);
  if (elf_.relocatable() && total == 0) return Errno(EINVAL);
  bool first = true;
  for (const Elf64_Phdr& segment : elf_.segments) {
    if (segment.p_type != PT_LOAD) continue;
    int flags = MAP_FIXED;
    uint64_t room = 0;
    if (first) {
      if (elf_.relocatable()) {
        bias_ = PageDown(wanted_bias - segment.p_vaddr);
        room = total;
      }
      flags = elf_.relocatable() && anywhere ? 0 : MAP_FIXED_NOREPLACE;
    }
    if (segment.p_filesz == 0 && first && flags == 0) {
      // Nothing of the file decides the place: find one.
      MmapRequest request;
      request.length = PageUp(total);
      request.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
      const uint64_t found = TRY(memory_.Mmap(request));
      TRY(memory_.Munmap(found, request.length));
      bias_ = found - PageDown(segment.p_vaddr);
    }
    const uint64_t address = bias_ + segment.p_vaddr;
    const uint64_t mapped = TRY(MapSegment(segment, address, flags, room));
    if (first && elf_.relocatable()) bias_ += mapped - PageDown(address);
    first = false;
    TRY(Account(segment));
  }
  // Linux leaves a program without PT_LOAD to fault at its entry.
  for (uint64_t* bound : {&start_code, &end_code, &start_data, &end_data, &end_}) {
    *bound += bias_;
  }
  return {};
}

// The new stack, written from the top down.
class StackWriter {
 public:
  StackWriter(MemoryManager& memory, uint64_t top) : memory_(memory), at_(top) {}

  uint64_t at() const { return at_; }
  void AlignTo(uint64_t bytes) { at_ &= ~(bytes - 1); }
  void Skip(uint64_t bytes) { at_ -= bytes; }
  // Its address.
  Result<uint64_t> PushBytes(std::span<const std::byte> bytes, uint64_t alignment = 1) {
    at_ -= bytes.size();
    AlignTo(alignment);
    TRY(memory_.CopyOutExactly(UserAddr(at_), bytes));
    return at_;
  }
  Result<uint64_t> PushString(const std::string& text) {
    return PushBytes(std::as_bytes(std::span(text.c_str(), text.size() + 1)));
  }

 private:
  MemoryManager& memory_;
  uint64_t at_;
};

struct Strings {
  std::vector<uint64_t> argv, envp;
  uint64_t path = 0;
  uint64_t arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
};

Result<Strings> WriteStrings(StackWriter& stack, const PreparedProgram& program) {
  Strings strings;
  stack.Skip(sizeof(uint64_t));  // Zero.
  strings.path = TRY(stack.PushString(program.path));
  const auto push =
      [&stack](const std::vector<std::string>& texts) -> Result<std::vector<uint64_t>> {
    // One copy for all: they lie one behind the other.
    std::string joined;
    std::vector<uint64_t> offsets;
    for (const std::string& text : texts) {
      offsets.push_back(joined.size());
      joined.append(text.c_str(), text.size() + 1);
    }
    const uint64_t base = TRY(stack.PushBytes(std::as_bytes(std::span(joined))));
    for (uint64_t& offset : offsets) offset += base;
    return offsets;
  };
  strings.env_end = stack.at();
  strings.envp = TRY(push(program.arguments.envp));
  strings.env_start = strings.arg_end = stack.at();
  strings.argv = TRY(push(program.arguments.argv));
  strings.arg_start = stack.at();
  return strings;
}

uint64_t StringBytes(const PreparedProgram& program) {
  uint64_t bytes = program.path.size() + 1;
  for (const std::string& text : program.arguments.argv) bytes += text.size() + 1 + 8;
  for (const std::string& text : program.arguments.envp) bytes += text.size() + 1 + 8;
  return bytes;
}

uint64_t RandomPages(const LoadRequest& request, uint64_t pages) {
  return request.randomize ? request.random.Next() % pages * kPageSize : 0;
}

Result<uint64_t> MapStack(const LoadRequest& request, MemoryManager& memory) {
  const uint64_t top =
      PageDown(memory.address_max()) - RandomPages(request, kStackRandomPages) - kPageSize;
  uint64_t size = PageUp(StringBytes(request.program) + kStackTopRandomBytes + kPageSize);
  size = std::max(size, std::min(size + kStackRoom, PageDown(request.stack_limit_bytes)));
  MmapRequest stack;
  stack.address = top - size;
  stack.length = size;
  stack.protection = PROT_READ | PROT_WRITE;
  if (request.program.program_elf->executable_stack) stack.protection |= PROT_EXEC;
  stack.flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
  stack.grows_down = true;
  stack.name = "[stack]";
  TRY(memory.Mmap(stack));
  return top;
}

// Auxiliary vector, in Linux's order.
std::vector<uint64_t> MakeAuxv(const LoadRequest& request, const ImageLoader& program,
                               uint64_t interpreter_base, uint64_t vdso, const Strings& strings,
                               uint64_t random, uint64_t platform) {
  const Credentials& credentials = *request.credentials;
  const ElfImage& elf = *request.program.program_elf;
  std::vector<uint64_t> auxv;
  const auto add = [&auxv](uint64_t type, uint64_t value) {
    auxv.push_back(type);
    auxv.push_back(value);
  };
  if (vdso != 0) add(AT_SYSINFO_EHDR, vdso);
  add(AT_MINSIGSTKSZ, getauxval(AT_MINSIGSTKSZ));
  add(AT_HWCAP, getauxval(AT_HWCAP));
  add(AT_PAGESZ, kPageSize);
  add(AT_CLKTCK, kClockTicks);
  add(AT_PHDR, program.headers());
  add(AT_PHENT, sizeof(Elf64_Phdr));
  add(AT_PHNUM, elf.segments.size());
  add(AT_BASE, interpreter_base);
  add(AT_FLAGS, 0);
  add(AT_ENTRY, program.entry());
  const UserNamespaceRef& users = credentials.user_namespace;
  add(AT_UID, UidSeenFrom(users, credentials.uid));
  add(AT_EUID, UidSeenFrom(users, credentials.euid));
  add(AT_GID, GidSeenFrom(users, credentials.gid));
  add(AT_EGID, GidSeenFrom(users, credentials.egid));
  add(AT_SECURE, request.secure ? 1 : 0);
  add(AT_RANDOM, random);
  add(AT_HWCAP2, getauxval(AT_HWCAP2));
  add(AT_EXECFN, strings.path);
  add(AT_PLATFORM, platform);
  add(AT_NULL, 0);
  return auxv;
}

// What the tables below the strings say, and where they went.
struct Tables {
  uint64_t stack_pointer = 0;
  std::vector<uint64_t> auxv;
};

Result<Tables> WriteTables(const LoadRequest& request, StackWriter& stack,
                           const ImageLoader& program, uint64_t interpreter_base, uint64_t vdso,
                           const Strings& strings) {
  if (request.randomize) stack.Skip(request.random.Next() % kStackTopRandomBytes);
  stack.AlignTo(16);
  const uint64_t platform = TRY(stack.PushString(kPlatform));
  std::array<std::byte, 16> seed;
  request.random.Fill(seed.data(), seed.size());
  const uint64_t random = TRY(stack.PushBytes(seed));
  Tables tables;
  tables.auxv = MakeAuxv(request, program, interpreter_base, vdso, strings, random, platform);
  std::vector<uint64_t> words;
  words.push_back(strings.argv.size());
  words.insert(words.end(), strings.argv.begin(), strings.argv.end());
  words.push_back(0);
  words.insert(words.end(), strings.envp.begin(), strings.envp.end());
  words.push_back(0);
  words.insert(words.end(), tables.auxv.begin(), tables.auxv.end());
  tables.stack_pointer = TRY(stack.PushBytes(std::as_bytes(std::span(words)), 16));
  return tables;
}

uint64_t ProgramBias(const LoadRequest& request) {
  uint64_t bias = kDynamicBase + RandomPages(request, kMmapRandomPages);
  const uint64_t alignment = MaximumAlignment(*request.program.program_elf);
  if (alignment > 0) bias &= ~(alignment - 1);
  return bias;
}

// Where the heap begins.
uint64_t ChooseBrk(const LoadRequest& request, uint64_t image_end, bool has_interpreter) {
  uint64_t start = PageUp(image_end);
  if (!request.randomize) return start;
  // A static PIE lies among the mappings, where a heap has no room to grow.
  if (request.program.program_elf->relocatable() && !has_interpreter) start = kDynamicBase;
  return start + request.random.Next() % (kBrkRandomBytes / kPageSize) * kPageSize;
}

}  // namespace

Result<LoadedImage> LoadProgram(const LoadRequest& request, MemoryManager& memory) {
  const PreparedProgram& program = request.program;
  memory.ConfigureLayout(request.stack_limit_bytes);
  const uint64_t top = TRY(MapStack(request, memory));
  StackWriter stack(memory, top);
  const Strings strings = TRY(WriteStrings(stack, program));

  ImageLoader main(memory, *program.program, *program.program_elf);
  const bool has_interpreter = program.interpreter != nullptr;
  TRY(main.Load(has_interpreter ? ProgramBias(request) : 0, !has_interpreter));
  uint64_t entry = main.entry();
  uint64_t interpreter_base = 0;
  if (has_interpreter) {
    ImageLoader linker(memory, *program.interpreter, *program.interpreter_elf);
    if (TotalMappingSize(*program.interpreter_elf) == 0) return Errno(EINVAL);
    TRY(linker.Load(0, true));
    entry = linker.entry();
    interpreter_base = linker.bias();
  }
  if (entry >= memory.address_max()) return Errno(EINVAL);
  const uint64_t brk = ChooseBrk(request, main.brk(), has_interpreter);
  memory.SetBrkStart(brk);
  uint64_t vdso = 0;
  if (request.vdso != nullptr) vdso = TRY(request.vdso->MapInto(memory));
  const Tables tables = TRY(WriteTables(request, stack, main, interpreter_base, vdso, strings));

  MemoryManager::Image image;
  image.start_code = main.start_code;
  image.end_code = main.end_code;
  image.start_data = main.start_data;
  image.end_data = main.end_data;
  image.start_brk = brk;
  image.start_stack = tables.stack_pointer;
  image.arg_start = strings.arg_start;
  image.arg_end = strings.arg_end;
  image.env_start = strings.env_start;
  image.env_end = strings.env_end;
  image.vdso = vdso;
  image.entry = main.entry();
  image.auxv = tables.auxv;
  image.executable = program.executable;
  memory.SetImage(std::move(image));
  return LoadedImage{entry, tables.stack_pointer};
}

}  // namespace sentry
