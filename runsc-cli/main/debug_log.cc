#include "runsc-cli/main/debug_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace runsc {
namespace {

// Sorts by time; the pid tells two runs of the same microsecond apart.
std::string TimeStamp() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  gmtime_r(&now.tv_sec, &parts);
  char date[32];
  strftime(date, sizeof(date), "%Y%m%d-%H%M%S", &parts);
  char text[80];
  snprintf(text, sizeof(text), "%s.%06ld-%d", date, now.tv_nsec / 1000, getpid());
  return text;
}

absl::Status Refused(const std::string& path) {
  const char* const remedy = errno == ENOSPC || errno == EDQUOT
                                 ? "free some space, or log elsewhere or not at all"
                                 : "give --debug-log a directory that you can write to";
  return absl::InvalidArgumentError(
      absl::StrCat("cannot create the log ", path, ": ", strerror(errno), "; ", remedy));
}

}  // namespace

absl::StatusOr<DebugLogs> OpenDebugLogs(const std::string& directory, bool network) {
  DebugLogs logs;
  if (directory.empty()) return logs;
  if (mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) return Refused(directory);
  const std::string prefix = absl::StrCat(directory, "/runsc.log.", TimeStamp(), ".");
  logs.sentry_path = absl::StrCat(prefix, "sentry.txt");
  logs.gofer_path = absl::StrCat(prefix, "gofer.txt");
  logs.network_path = absl::StrCat(prefix, "network.txt");
  const std::string runsc_path = absl::StrCat(prefix, "runsc.txt");
  const std::pair<const std::string*, base::Fd*> files[] = {{&runsc_path, &logs.runsc},
                                                            {&logs.sentry_path, &logs.sentry},
                                                            {&logs.gofer_path, &logs.gofer},
                                                            {&logs.network_path, &logs.network}};
  for (const auto& [path, fd] : files) {
    if (fd == &logs.network && !network) continue;
    *fd = base::Fd(open(path->c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644));
    if (*fd) continue;
    const absl::Status status = Refused(*path);
    // What was made so far says nothing to anybody.
    for (const auto& [made_path, made] : files) {
      if (made->valid()) unlink(made_path->c_str());
    }
    return status;
  }
  return logs;
}

}  // namespace runsc
