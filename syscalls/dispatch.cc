#include "syscalls/dispatch.h"

#include <cerrno>

#include "sentry/kernel/current_task.h"
#include "syscalls/strace.h"
#include "syscalls/table.h"

namespace syscalls {
namespace {

int64_t Call(sentry::Task& task, uint64_t number, const RegisterFile& arguments) {
  if (number >= kTableSize) return -ENOSYS;
  const Row& row = X8664()[number];
  if (row.handler == nullptr) return row.refusal != 0 ? -row.refusal : -ENOSYS;
  const sentry::CurrentTaskScope current(task);
  const base::Result<uint64_t> result = row.handler(task, arguments);
  if (!result.ok()) return -static_cast<int64_t>(result.error().value());
  return static_cast<int64_t>(result.value());
}

}  // namespace

int64_t TableDispatcher::Dispatch(sentry::Task& task, uint64_t number,
                                  const uint64_t (&arguments)[6]) {
  const RegisterFile registers{arguments[0], arguments[1], arguments[2],
                               arguments[3], arguments[4], arguments[5]};
  if (!trace_) [[likely]]
    return Call(task, number, registers);
  const TracedCall traced(task, number, registers);
  const int64_t result = Call(task, number, registers);
  traced.Finish(result);
  return result;
}

}  // namespace syscalls
