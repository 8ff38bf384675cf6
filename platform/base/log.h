#pragma once

// The process's log: lines of text to one descriptor that was opened before the filters went up.
// Async-signal-safe in so far as a line is formatted on the stack and written by one write(2).

#include <cstdarg>
#include <cstdint>

namespace base {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };

// Where lines go from now on. `fd` stays the caller's and must outlive the process's last line;
// -1 drops lines below kWarning and sends the rest to standard error. `component` is a literal
// ("sentry", "gofer", ...) put in front of each line.
void SetLogSink(int fd, LogLevel minimum, const char* component);
bool LogEnabled(LogLevel level);

// printf-style; at most 1 KiB per line, longer lines are cut. errno is preserved.
[[gnu::format(printf, 2, 3)]] void Log(LogLevel level, const char* format, ...);

}  // namespace base

#define LOG_DEBUG(...)                                    \
  do {                                                    \
    if (::base::LogEnabled(::base::LogLevel::kDebug))     \
      ::base::Log(::base::LogLevel::kDebug, __VA_ARGS__); \
  } while (false)
#define LOG_INFO(...) ::base::Log(::base::LogLevel::kInfo, __VA_ARGS__)
#define LOG_WARNING(...) ::base::Log(::base::LogLevel::kWarning, __VA_ARGS__)
#define LOG_ERROR(...) ::base::Log(::base::LogLevel::kError, __VA_ARGS__)
