#include "sentry/signal/signal_handlers.h"

#include <utility>

namespace sentry {

SignalAction SignalHandlers::Get(int signal) const {
  const absl::MutexLock lock(&mu_);
  return actions_[static_cast<size_t>(signal - 1)];
}

SignalAction SignalHandlers::Set(int signal, const SignalAction& action) {
  const absl::MutexLock lock(&mu_);
  return std::exchange(actions_[static_cast<size_t>(signal - 1)], action);
}

std::shared_ptr<SignalHandlers> SignalHandlers::Copy() const {
  auto copy = std::make_shared<SignalHandlers>();
  const absl::MutexLock lock(&mu_);
  const absl::MutexLock copy_lock(&copy->mu_);
  copy->actions_ = actions_;
  return copy;
}

void SignalHandlers::ResetHandled() {
  const absl::MutexLock lock(&mu_);
  for (SignalAction& action : actions_) {
    action = SignalAction{.handler =
                              action.handler == kHandlerIgnore ? kHandlerIgnore : kHandlerDefault};
  }
}

SignalSet SignalHandlers::Ignored() const {
  const absl::MutexLock lock(&mu_);
  SignalSet set = 0;
  for (int signal = 1; signal <= kSignalMax; ++signal) {
    if (actions_[static_cast<size_t>(signal - 1)].handler == kHandlerIgnore)
      set |= SignalBit(signal);
  }
  return set;
}

SignalSet SignalHandlers::Caught() const {
  const absl::MutexLock lock(&mu_);
  SignalSet set = 0;
  for (int signal = 1; signal <= kSignalMax; ++signal) {
    const uint64_t handler = actions_[static_cast<size_t>(signal - 1)].handler;
    if (handler != kHandlerIgnore && handler != kHandlerDefault) set |= SignalBit(signal);
  }
  return set;
}

}  // namespace sentry
