#pragma once

// `--timing`: when each step of a start was reached, in all three processes.
//
// The processes share one pipe. A step is one write of a record, which is a fraction of a
// microsecond beside what is measured, and is read by runsc when the sandbox has ended, so that
// printing disturbs nothing. CLOCK_MONOTONIC is the same in all of them: no time namespace.

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "platform/base/fd.h"

namespace runsc {

uint64_t MonotonicNs();

// One process's end. Async-signal-safe.
class Timing {
 public:
  // `fd` is borrowed; -1: nothing is noted.
  Timing(int fd, const char* process) : fd_(fd), process_(process) {}
  // What is in the caller's way: a full pipe drops the record.
  void Note(const char* step) const;
  bool on() const { return fd_ >= 0; }
  int fd() const { return fd_; }

 private:
  int fd_;
  const char* process_;
};

struct TimingPipe {
  base::Fd reader;
  base::Fd writer;
};
absl::StatusOr<TimingPipe> CreateTimingPipe();

// A table of all records in order of time, each with its distance from the one before.
std::string TimingReport(int reader, uint64_t start_ns);

}  // namespace runsc
