#include "runsc-cli/oci/logrus.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "platform/base/strings.h"
#include "runsc-cli/oci/json.h"

namespace oci {
namespace {

void WriteAll(int fd, const std::string& text) {
  // One write: lines of several commands in one file must not mix. Nobody can be told of a failure.
  [[maybe_unused]] const ssize_t written = write(fd, text.data(), text.size());
}

}  // namespace

std::string TimeNow(bool with_nanoseconds) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  char text[64];
  const size_t length = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
  if (with_nanoseconds) {
    snprintf(text + length, sizeof(text) - length, ".%09ldZ", now.tv_nsec);
  } else {
    snprintf(text + length, sizeof(text) - length, "Z");
  }
  return text;
}

absl::Status Logrus::Open(const std::string& path, const std::string& format) {
  if (format != "text" && format != "json" && !format.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("unknown log-format \"", format, "\""));
  }
  json_ = format == "json";
  if (path.empty()) return absl::OkStatus();
  file_ = base::Fd(open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!file_) {
    return absl::InternalError(absl::StrCat("open ", path, ": ", strerror(errno)));
  }
  return absl::OkStatus();
}

void Logrus::Write(const char* level, std::string_view message) const {
  std::string line;
  if (json_) {
    Json entry;
    entry.Set("level", level);
    entry.Set("msg", message);
    entry.Set("time", TimeNow(false));
    line = entry.Dump() + "\n";
  } else {
    line = absl::StrCat("time=\"", TimeNow(false), "\" level=", level,
                        " msg=", Json(message).Dump(), "\n");
  }
  WriteAll(file_ ? file_.get() : STDERR_FILENO, line);
}

void Logrus::Error(std::string_view message) const {
  Write("error", message);
  // Callers without a look at the file show standard error.
  if (file_) WriteAll(STDERR_FILENO, std::string(message) + "\n");
}

void Logrus::Warning(std::string_view message) const { Write("warning", message); }

void Logrus::Debug(std::string_view message) const {
  if (debug_) Write("debug", message);
}

}  // namespace oci
