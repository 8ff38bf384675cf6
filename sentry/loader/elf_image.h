#pragma once

// Reading an ELF file's headers. Everything here is the guest's: numbers are compared, never
// trusted.

#include <elf.h>

#include <cstdint>
#include <string>
#include <vector>

#include "platform/base/result.h"
#include "sentry/loader/loader.h"

namespace sentry {

struct ElfImage {
  Elf64_Ehdr header{};
  std::vector<Elf64_Phdr> segments;  // All program headers, as they are in the file.
  std::string interpreter;           // PT_INTERP; empty if there is none.
  bool executable_stack = false;     // PT_GNU_STACK with PF_X.

  bool relocatable() const { return header.e_type == ET_DYN; }
};

// What goes wrong with the headers is `bad` (ENOEXEC for a program, ELIBBAD for an interpreter);
// errors of reading pass through. `with_interpreter`: look for PT_INTERP.
base::Result<ElfImage> ReadElf(ProgramFile& file, base::Errno bad, bool with_interpreter);

// Distance from the first page of the lowest PT_LOAD to the end of the highest; 0 if there is none
// or the sum wraps.
uint64_t TotalMappingSize(const ElfImage& elf);
// Largest p_align of the PT_LOADs that is a power of two; 0 if there is none.
uint64_t MaximumAlignment(const ElfImage& elf);

// The first line of a script, by fs/binfmt_script.c.
struct ScriptLine {
  std::string interpreter;
  std::string argument;
  bool has_argument = false;
};
// `head`: the first kScriptLineBytesMax bytes of the file, zero padded, beginning with "#!".
// ENOEXEC.
base::Result<ScriptLine> ParseScriptLine(std::string_view head);

}  // namespace sentry
