#include "platform/base/log.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "platform/base/check.h"

namespace base {
namespace {

constexpr size_t kLineBytesMax = 1024;

std::atomic<int> g_fd{-1};
std::atomic<LogLevel> g_minimum{LogLevel::kWarning};
std::atomic<const char*> g_component{"ravelin"};

char Letter(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return 'D';
    case LogLevel::kInfo:
      return 'I';
    case LogLevel::kWarning:
      return 'W';
    case LogLevel::kError:
      return 'E';
  }
  return '?';
}

void WriteAll(int fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    // A full disk or a closed log must not take the sandbox down: the line is lost.
    if (written <= 0) return;
    data += written;
    size -= static_cast<size_t>(written);
  }
}

}  // namespace

void SetLogSink(int fd, LogLevel minimum, const char* component) {
  g_component.store(component);
  g_minimum.store(minimum);
  g_fd.store(fd);
}

bool LogEnabled(LogLevel level) { return level >= g_minimum.load(std::memory_order_relaxed); }

void Log(LogLevel level, const char* format, ...) {
  if (!LogEnabled(level)) return;
  const int saved_errno = errno;
  char line[kLineBytesMax];
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  const int head = snprintf(line, sizeof(line), "%c %lld.%06ld %s: ", Letter(level),
                            static_cast<long long>(now.tv_sec), now.tv_nsec / 1000,
                            g_component.load(std::memory_order_relaxed));
  va_list args;
  va_start(args, format);
  const int body =
      vsnprintf(line + head, sizeof(line) - static_cast<size_t>(head) - 1, format, args);
  va_end(args);
  const size_t length = std::min(static_cast<size_t>(head) + static_cast<size_t>(std::max(body, 0)),
                                 sizeof(line) - 2);
  line[length] = '\n';
  const int fd = g_fd.load(std::memory_order_relaxed);
  WriteAll(fd >= 0 ? fd : STDERR_FILENO, line, length + 1);
  errno = saved_errno;
}

void CheckFailed(const char* file, int line, const char* condition) {
  Log(LogLevel::kError, "panic: CHECK(%s) failed at %s:%d", condition, file, line);
  if (g_fd.load() >= 0) {
    // The operator sees one line even when the report goes to a file.
    char text[512];
    const int length =
        snprintf(text, sizeof(text), "%s: internal error: CHECK(%s) at %s:%d; see the debug log\n",
                 g_component.load(), condition, file, line);
    WriteAll(STDERR_FILENO, text,
             std::min(static_cast<size_t>(std::max(length, 0)), sizeof(text) - 1));
  }
  abort();
}

}  // namespace base
