#pragma once

// execve(2)'s work on files and memory, in two steps with Linux's point of no return between them:
//
//   PrepareProgram   opens and checks everything that can still be refused: the #! chain, the ELF
//   header, the program
//                    headers, the interpreter. Its error is execve's error; nothing has changed.
//   LoadProgram      fills a fresh MemoryManager: segments, stack, auxiliary vector, vDSO. An error
//   here kills the caller
//                    with SIGSEGV on Linux, because the old memory is gone by then. Whoever builds
//                    the new memory before dropping the old one still has to do that.
//
// Between the two, execve computes the new credentials from PreparedProgram::executable (after #!).

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "platform/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/time/clock.h"
#include "sentry/vfs/file.h"

namespace sentry {

class Task;
class Vdso;

inline constexpr uint64_t kArgumentBytesMax = 128 * 1024;  // MAX_ARG_STRLEN, with the NUL.
inline constexpr size_t kScriptDepthMax = 5;
inline constexpr size_t kScriptLineBytesMax = 256;

// What the loader needs of an executable.
class ProgramFile {
 public:
  virtual ~ProgramFile() = default;
  // Short at the end of the file.
  virtual base::Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) = 0;
  // Fills request.mappable and request.file.
  virtual base::Result<void> ConfigureMmap(MmapRequest& request) = 0;
  // The open file; null in tests.
  virtual FileRef file() const = 0;
};

// How the loader opens interpreters, by Linux's open_exec: regular, executable, not on a noexec
// mount. ENOENT, EACCES, ELOOP, ...
class ProgramOpener {
 public:
  virtual ~ProgramOpener() = default;
  virtual base::Result<std::shared_ptr<ProgramFile>> Open(std::string_view path) = 0;
};

// Strings of a new program. E2BIG is checked by PrepareProgram; execve bounds its own copying in by
// CheckArgumentSize.
struct ProgramArguments {
  std::vector<std::string> argv;  // Never empty after PrepareProgram (Linux adds an empty argv[0]).
  std::vector<std::string> envp;
};

// Of one ELF file: what was checked.
struct ElfImage;

struct PreparedProgram {
  std::shared_ptr<ProgramFile> program;      // The ELF file that will run, after #!.
  std::shared_ptr<ProgramFile> interpreter;  // PT_INTERP's; null for static programs.
  std::shared_ptr<const ElfImage> program_elf;
  std::shared_ptr<const ElfImage> interpreter_elf;
  FileRef executable;          // program->file(): /proc/PID/exe, owner of the setuid bits.
  std::string path;            // As execve got it: AT_EXECFN.
  std::string name;            // New comm: last component of `path`, at most 15 bytes.
  ProgramArguments arguments;  // As changed by #!.
};

// `path`: execve's, or "/dev/fd/N[/path]" for execveat as Linux names it. `path_is_closed`: the
// descriptor is close-on-exec, so that a script could not be opened by its interpreter (ENOENT).
// `stack_limit_bytes`: RLIMIT_STACK.
struct PrepareRequest {
  std::shared_ptr<ProgramFile> program;
  std::string path;
  bool path_is_closed = false;
  ProgramArguments arguments;
  uint64_t stack_limit_bytes = uint64_t{8} << 20;
};
base::Result<PreparedProgram> PrepareProgram(PrepareRequest request, ProgramOpener& opener);

// E2BIG when strings of this total (bytes with NULs) and number do not fit: stack limit / 4, at
// least 128 KiB, at most 6 MiB.
base::Result<void> CheckArgumentSize(uint64_t string_bytes, uint64_t string_count,
                                     uint64_t stack_limit_bytes);

struct LoadRequest {
  const PreparedProgram& program;
  CredentialsRef credentials;  // The new ones: AT_UID, AT_EUID, AT_GID, AT_EGID.
  bool secure = false;         // AT_SECURE
  uint64_t stack_limit_bytes = uint64_t{8} << 20;
  bool randomize = true;       // ASLR; false under personality(ADDR_NO_RANDOMIZE).
  Random& random;              // AT_RANDOM, ASLR.
  const Vdso* vdso = nullptr;  // Null: none is mapped.
};

struct LoadedImage {
  uint64_t entry = 0;          // rip
  uint64_t stack_pointer = 0;  // rsp
};
// `memory` is new and empty. Sets its Image (argv, env, auxv for /proc) and break too.
base::Result<LoadedImage> LoadProgram(const LoadRequest& request, MemoryManager& memory);

// Adaptors over the vfs.
// Checks as open_exec does: EACCES if it is not regular, not executable for the task, or on a
// noexec mount; ETXTBSY if it is open for writing, which it cannot be while the result is open.
base::Result<FileRef> OpenExecutable(Task& task, const Path& path);
std::shared_ptr<ProgramFile> MakeProgramFile(Task& task, FileRef file);
// Opens relative to the task's root and working directory. Lives no longer than `task`'s current
// call.
std::unique_ptr<ProgramOpener> MakeProgramOpener(Task& task);

}  // namespace sentry
