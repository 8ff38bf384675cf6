#pragma once

// From the number in rax to the handler in the table.

#include <cstdint>

#include "sentry/kernel/kernel.h"

namespace syscalls {

class TableDispatcher : public sentry::Dispatcher {
 public:
  // `trace`: a line in the log for each call (runsc --strace).
  explicit TableDispatcher(bool trace) : trace_(trace) {}
  int64_t Dispatch(sentry::Task& task, uint64_t number, const uint64_t (&arguments)[6]) override;

 private:
  const bool trace_;
};

}  // namespace syscalls
