#include "runsc-cli/main/timing.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace runsc {
namespace {

struct Record {
  uint64_t when_ns;
  char process[8];
  char step[48];
};
static_assert(sizeof(Record) == 64);  // Below PIPE_BUF, so records of two writers do not mix.

// A sentry that we do not trust can write here, too.
std::string Printable(const char* text, size_t bytes_max) {
  std::string out(text, strnlen(text, bytes_max));
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
  }
  return out;
}

}  // namespace

uint64_t MonotonicNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

void Timing::Note(const char* step) const {
  if (fd_ < 0) return;
  Record record{MonotonicNs(), {}, {}};
  strncpy(record.process, process_, sizeof(record.process) - 1);
  strncpy(record.step, step, sizeof(record.step) - 1);
  [[maybe_unused]] const ssize_t written = write(fd_, &record, sizeof(record));
}

absl::StatusOr<TimingPipe> CreateTimingPipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return absl::InternalError(absl::StrCat("cannot create a pipe: ", strerror(errno)));
  }
  return TimingPipe{base::Fd(ends[0]), base::Fd(ends[1])};
}

std::string TimingReport(int reader, uint64_t start_ns) {
  std::vector<Record> records;
  Record record{};
  while (read(reader, &record, sizeof(record)) == sizeof(record)) records.push_back(record);
  std::sort(records.begin(), records.end(),
            [](const Record& a, const Record& b) { return a.when_ns < b.when_ns; });
  std::string report = "runsc: timing:   at us  + us  process  step\n";
  uint64_t before_ns = start_ns;
  for (const Record& each : records) {
    const uint64_t at_ns = std::max(each.when_ns, before_ns);
    char line[64];
    snprintf(line, sizeof(line), "runsc: timing: %7llu %5llu  ",
             static_cast<unsigned long long>((at_ns - start_ns) / 1000),
             static_cast<unsigned long long>((at_ns - before_ns) / 1000));
    std::string process = Printable(each.process, sizeof(each.process));
    process.resize(std::max(process.size(), sizeof(each.process)), ' ');
    absl::StrAppend(&report, line, process, " ", Printable(each.step, sizeof(each.step)), "\n");
    before_ns = at_ns;
  }
  return report;
}

}  // namespace runsc
