#include "platform/base/text_pages.h"

#include <sys/mman.h>

#include <cstdint>

// By the linker: the first byte of the image, and the first one past its code. Between them is only
// what is never written; relocated data comes after.
extern "C" {
extern const char __executable_start[];
extern const char etext[];
}

namespace base {

void DropTextPages() {
#ifndef RAVELIN_SANITIZE
  constexpr uintptr_t kPage = 4096;
  const uintptr_t start = reinterpret_cast<uintptr_t>(__executable_start) & ~(kPage - 1);
  const uintptr_t end = reinterpret_cast<uintptr_t>(etext) & ~(kPage - 1);
  // Fails where there are holes, after it has done its work.
  madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
#endif
}

}  // namespace base
