#include "sentry/loader/elf_image.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <climits>
#include <cstring>

#include "platform/base/user_addr.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::PageDown;
using base::Result;

namespace {

// Reads exactly; EIO for a file that is too short, as elf_read.
Result<void> ReadExactly(ProgramFile& file, uint64_t offset, std::span<std::byte> out) {
  size_t done = 0;
  while (done < out.size()) {
    if (offset > static_cast<uint64_t>(LLONG_MAX) - out.size()) return Errno(EINVAL);
    const size_t count = TRY(file.ReadAt(offset + done, out.subspan(done)));
    if (count == 0) return Errno(EIO);
    done += count;
  }
  return {};
}

Result<std::vector<Elf64_Phdr>> ReadProgramHeaders(ProgramFile& file, const Elf64_Ehdr& header,
                                                   Errno bad) {
  if (header.e_phentsize != sizeof(Elf64_Phdr)) return bad;
  const size_t bytes = size_t{header.e_phnum} * sizeof(Elf64_Phdr);
  if (bytes == 0 || bytes > kPageSize) return bad;
  std::vector<Elf64_Phdr> headers(header.e_phnum);
  if (!ReadExactly(file, header.e_phoff, std::as_writable_bytes(std::span(headers))).ok()) {
    return bad;
  }
  return headers;
}

Result<std::string> ReadInterpreterPath(ProgramFile& file, const Elf64_Phdr& segment) {
  if (segment.p_filesz > PATH_MAX || segment.p_filesz < 2) return Errno(ENOEXEC);
  std::string path(segment.p_filesz, '\0');
  TRY(ReadExactly(file, segment.p_offset,
                  std::as_writable_bytes(std::span(path.data(), path.size()))));
  if (path.back() != '\0') return Errno(ENOEXEC);
  path.resize(std::strlen(path.c_str()));
  return path;
}

bool IsSpaceOrTab(char c) { return c == ' ' || c == '\t'; }

}  // namespace

Result<ElfImage> ReadElf(ProgramFile& file, Errno bad, bool with_interpreter) {
  ElfImage elf;
  TRY(ReadExactly(file, 0, std::as_writable_bytes(std::span(&elf.header, 1))));
  if (std::memcmp(elf.header.e_ident, ELFMAG, SELFMAG) != 0) return bad;
  if (elf.header.e_type != ET_EXEC && elf.header.e_type != ET_DYN) return bad;
  if (elf.header.e_machine != EM_X86_64) return bad;
  elf.segments = TRY(ReadProgramHeaders(file, elf.header, bad));
  bool found = false;
  for (const Elf64_Phdr& segment : elf.segments) {
    if (segment.p_type == PT_INTERP && with_interpreter && !found) {
      elf.interpreter = TRY(ReadInterpreterPath(file, segment));
      found = true;
    }
    if (segment.p_type == PT_GNU_STACK) elf.executable_stack = (segment.p_flags & PF_X) != 0;
  }
  // An empty path names nothing.
  if (found && elf.interpreter.empty()) return Errno(ENOENT);
  return elf;
}

uint64_t TotalMappingSize(const ElfImage& elf) {
  uint64_t low = ~uint64_t{0};
  uint64_t high = 0;
  for (const Elf64_Phdr& segment : elf.segments) {
    if (segment.p_type != PT_LOAD) continue;
    uint64_t end = 0;
    if (__builtin_add_overflow(segment.p_vaddr, segment.p_memsz, &end)) return 0;
    low = std::min(low, PageDown(segment.p_vaddr));
    high = std::max(high, end);
  }
  return high > low ? high - low : 0;
}

uint64_t MaximumAlignment(const ElfImage& elf) {
  uint64_t alignment = 0;
  for (const Elf64_Phdr& segment : elf.segments) {
    if (segment.p_type != PT_LOAD || !std::has_single_bit(segment.p_align)) continue;
    alignment = std::max(alignment, uint64_t{segment.p_align});
  }
  return alignment;
}

Result<ScriptLine> ParseScriptLine(std::string_view head) {
  // Positions are those of Linux's code: `end` is one past the last byte that counts.
  constexpr size_t kNone = std::string_view::npos;
  const size_t last = kScriptLineBytesMax - 1;
  const auto next_word = [head](size_t from, size_t to) {
    while (from <= to && from < head.size() && IsSpaceOrTab(head[from])) from++;
    return from <= to && from < head.size() ? from : kNone;
  };
  const auto next_terminator = [head](size_t from, size_t to) {
    while (from <= to && from < head.size() && !IsSpaceOrTab(head[from]) && head[from] != '\0') {
      from++;
    }
    return from <= to && from < head.size() ? from : kNone;
  };
  if (head.size() != kScriptLineBytesMax) return Errno(ENOEXEC);
  size_t end = head.find('\n');
  if (end == kNone) {
    end = next_word(2, last);
    // Cut off in the middle of the path: it would be another file's name.
    if (end == kNone || next_terminator(end, last) == kNone) return Errno(ENOEXEC);
    end = last;
  }
  while (end > 2 && IsSpaceOrTab(head[end - 1])) end--;
  const size_t name = next_word(2, end);
  if (name == kNone || name == end) return Errno(ENOEXEC);
  const size_t separator = next_terminator(name, end);
  const auto text = [head](size_t from, size_t to) {
    std::string word(head.substr(from, to - from));
    word.resize(std::strlen(word.c_str()));  // A NUL ends it.
    return word;
  };
  ScriptLine line;
  line.interpreter = text(name, separator == kNone ? end : std::min(separator, end));
  if (separator != kNone && separator < end && head[separator] != '\0') {
    const size_t argument = next_word(separator, end);
    if (argument != kNone && argument < end) {
      line.has_argument = true;
      line.argument = text(argument, end);
    }
  }
  if (line.interpreter.empty()) return Errno(ENOENT);
  return line;
}

}  // namespace sentry
