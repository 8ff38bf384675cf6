#pragma once

// runsc --strace: one line for a call when it begins to act and one when it has ended, with decoded
// arguments. For people who look for the reason why a program fails; not a security log.

#include <cstdint>
#include <string>

#include "syscalls/table.h"

namespace syscalls {

// A call under way. Arguments that the guest passes in are decoded by the constructor, those that
// it gets by Finish.
class TracedCall {
 public:
  TracedCall(sentry::Task& task, uint64_t number, const RegisterFile& arguments);
  void Finish(int64_t result) const;

 private:
  sentry::Task& task_;
  const uint64_t number_;
  const RegisterFile arguments_;
  const int32_t tid_;
  std::string text_;
};

}  // namespace syscalls
