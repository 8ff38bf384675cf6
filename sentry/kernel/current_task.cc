#include "sentry/kernel/current_task.h"

namespace sentry {
namespace {
thread_local Task* current_task = nullptr;
}

Task* CurrentTask() { return current_task; }
CurrentTaskScope::CurrentTaskScope(Task& task) { current_task = &task; }
CurrentTaskScope::~CurrentTaskScope() { current_task = nullptr; }

}  // namespace sentry
