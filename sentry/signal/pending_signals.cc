#include "sentry/signal/pending_signals.h"

#include <bit>
#include <utility>

#include "platform/base/check.h"

namespace sentry {

int PendingSignals::Lowest(SignalSet set) { return set == 0 ? 0 : std::countr_zero(set) + 1; }

void PendingSignals::Add(const SignalInfo& info, std::shared_ptr<SignalCharge> charge) {
  set_ |= SignalBit(info.signal);
  if (charge != nullptr) entries_.push_back({info, std::move(charge)});
}

SignalInfo* PendingSignals::FindTimer(int signal, int32_t timer_id) {
  if (!Contains(signal)) return nullptr;
  for (Entry& entry : entries_) {
    if (entry.info.signal == signal && entry.info.code == SI_TIMER &&
        entry.info.timer_id == timer_id) {
      return &entry.info;
    }
  }
  return nullptr;
}

std::optional<SignalInfo> PendingSignals::TakeSynchronous(SignalSet allowed) {
  if ((set_ & allowed & kSynchronousSignals) == 0) return std::nullopt;
  for (size_t i = 0; i < entries_.size(); ++i) {
    const SignalInfo& info = entries_[i].info;
    if ((SignalBit(info.signal) & allowed & kSynchronousSignals) == 0 || info.code <= SI_USER)
      continue;
    SignalInfo taken = info;
    entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(i));
    bool more = false;
    for (const Entry& entry : entries_) more = more || entry.info.signal == taken.signal;
    if (!more) set_ &= ~SignalBit(taken.signal);
    return taken;
  }
  return std::nullopt;
}

SignalInfo PendingSignals::TakeSignal(int signal) {
  SignalInfo taken = SignalInfo::FromUser(signal, 0, 0);
  bool found = false;
  bool more = false;
  for (size_t i = 0; i < entries_.size();) {
    if (entries_[i].info.signal != signal) {
      ++i;
    } else if (!found) {
      taken = entries_[i].info;
      entries_.erase(entries_.begin() + static_cast<ptrdiff_t>(i));
      found = true;
    } else {
      more = true;
      break;
    }
  }
  if (!more) set_ &= ~SignalBit(signal);
  return taken;
}

std::optional<SignalInfo> PendingSignals::Take(SignalSet allowed) {
  const SignalSet available = set_ & allowed;
  if (available == 0) return std::nullopt;
  const SignalSet synchronous = available & kSynchronousSignals;
  return TakeSignal(Lowest(synchronous != 0 ? synchronous : available));
}

void PendingSignals::Clear(SignalSet set, std::vector<SignalInfo>* from_timers) {
  if ((set_ & set) == 0) return;
  set_ &= ~set;
  std::erase_if(entries_, [&](const Entry& entry) {
    if ((SignalBit(entry.info.signal) & set) == 0) return false;
    if (from_timers != nullptr && entry.info.from_timer) from_timers->push_back(entry.info);
    return true;
  });
}

}  // namespace sentry
