// The part of execve that may still be refused: what file will run, and with which strings.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "sentry/loader/elf_image.h"
#include "sentry/loader/loader.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr size_t kNameBytesMax = 15;
// Linux's ARG_MAX and three quarters of _STK_LIM.
constexpr uint64_t kArgumentsFloor = 128 * 1024;
constexpr uint64_t kArgumentsCeiling = uint64_t{6} << 20;

// The first bytes of a file, zero padded.
Result<std::string> ReadHead(ProgramFile& file) {
  std::string head(kScriptLineBytesMax, '\0');
  size_t done = 0;
  while (done < head.size()) {
    const size_t count = TRY(file.ReadAt(
        done, std::as_writable_bytes(std::span(head.data() + done, head.size() - done))));
    if (count == 0) break;
    done += count;
  }
  return head;
}

std::string CommandName(const std::string& path) {
  const size_t slash = path.rfind('/');
  std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  name.resize(std::min(name.size(), kNameBytesMax));
  return name;
}

Result<void> CheckArguments(const PrepareRequest& request) {
  uint64_t bytes = request.path.size() + 1;
  for (const std::vector<std::string>* strings :
       {&request.arguments.argv, &request.arguments.envp}) {
    for (const std::string& text : *strings) {
      if (text.size() + 1 > kArgumentBytesMax) return Errno(E2BIG);
      bytes += text.size() + 1;
    }
  }
  const uint64_t count =
      std::max<uint64_t>(request.arguments.argv.size(), 1) + request.arguments.envp.size();
  return CheckArgumentSize(bytes, count, request.stack_limit_bytes);
}

}  // namespace

Result<void> CheckArgumentSize(uint64_t string_bytes, uint64_t string_count,
                               uint64_t stack_limit_bytes) {
  const uint64_t limit =
      std::max(std::min(kArgumentsCeiling, stack_limit_bytes / 4), kArgumentsFloor);
  if (string_count > limit / sizeof(uint64_t)) return Errno(E2BIG);
  const uint64_t pointers = string_count * sizeof(uint64_t);
  if (limit <= pointers || string_bytes > limit - pointers) return Errno(E2BIG);
  return {};
}

Result<PreparedProgram> PrepareProgram(PrepareRequest request, ProgramOpener& opener) {
  if (request.arguments.argv.empty()) request.arguments.argv.emplace_back();
  TRY(CheckArguments(request));
  PreparedProgram prepared;
  prepared.path = request.path;
  prepared.name = CommandName(request.path);
  std::shared_ptr<ProgramFile> file = std::move(request.program);
  std::vector<std::string>& argv = request.arguments.argv;
  std::string called = request.path;  // The name under which the next interpreter finds its script.
  for (size_t depth = 0;; depth++) {
    if (depth > kScriptDepthMax) return Errno(ELOOP);
    const std::string head = TRY(ReadHead(*file));
    if (!head.starts_with("#!")) {
      if (std::memcmp(head.data(), ELFMAG, SELFMAG) != 0) return Errno(ENOEXEC);
      break;
    }
    ScriptLine line = TRY(ParseScriptLine(head));
    if (request.path_is_closed) return Errno(ENOENT);
    argv.front() = std::move(called);
    if (line.has_argument) argv.insert(argv.begin(), std::move(line.argument));
    argv.insert(argv.begin(), line.interpreter);
    TRY(CheckArguments(request));
    file = TRY(opener.Open(line.interpreter));
    called = std::move(line.interpreter);
  }
  // A header cut short reads as zeroes on Linux, and is no program then either.
  Result<ElfImage> elf = ReadElf(*file, Errno(ENOEXEC), true);
  if (!elf.ok()) return elf.error() == EIO ? Errno(ENOEXEC) : elf.error();
  auto program_elf = std::make_shared<ElfImage>(std::move(elf).value());
  if (!program_elf->interpreter.empty()) {
    prepared.interpreter = TRY(opener.Open(program_elf->interpreter));
    prepared.interpreter_elf =
        std::make_shared<ElfImage>(TRY(ReadElf(*prepared.interpreter, Errno(ELIBBAD), false)));
  }
  prepared.program_elf = std::move(program_elf);
  prepared.executable = file->file();
  prepared.program = std::move(file);
  prepared.arguments = std::move(request.arguments);
  return prepared;
}

}  // namespace sentry
