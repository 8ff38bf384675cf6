#include "runsc-cli/main/process_title.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "platform/base/fd.h"

namespace runsc {

void ShowCommandLine(const std::vector<std::string>& arguments) {
  // Fields 48 and 49 of /proc/PID/stat: where the kernel has put the arguments.
  const base::Fd fd(open("/proc/self/stat", O_RDONLY | O_CLOEXEC));
  char text[2048] = {};
  if (!fd || read(fd.get(), text, sizeof(text) - 1) <= 0) return;
  const char* at = strrchr(text, ')');
  for (int field = 2; at != nullptr && field < 48; ++field) at = strchr(at + 1, ' ');
  if (at == nullptr) return;
  char* next = nullptr;
  const uint64_t begin = strtoull(at, &next, 10);
  const uint64_t end = strtoull(next, nullptr, 10);
  if (begin == 0 || end <= begin) return;
  std::string title;
  for (const std::string& argument : arguments) title.append(argument).push_back('\0');
  auto* const place = reinterpret_cast<char*>(begin);
  const size_t room = end - begin;
  memset(place, 0, room);
  // The last byte stays zero: otherwise the kernel takes the title to go on in the environment.
  memcpy(place, title.data(), std::min(title.size(), room - 1));
}

}  // namespace runsc
