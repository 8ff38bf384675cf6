#pragma once

// A static executable's code counts as resident memory of each process that runs it, and the host
// maps it in pieces of 64 KiB around each instruction that is new: soon all of it, though a start
// needs most of it once, and what comes after needs little.

namespace base {

// Unmaps the pages of this executable's code and constants. They stay in the host's page cache, and
// what is used again comes back by minor faults. (A debugger's breakpoints are lost.)
void DropTextPages();

}  // namespace base
