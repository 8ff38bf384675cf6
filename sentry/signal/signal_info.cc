#include "sentry/signal/signal_info.h"

#include <algorithm>
#include <cstring>

namespace sentry {
namespace {

constexpr size_t kUnion = 16;  // Where the fields after si_code begin.

template <typename T>
void Put(SignalInfoBytes& bytes, size_t offset, T value) {
  std::memcpy(bytes.data() + offset, &value, sizeof(value));
}

template <typename T>
T Fetch(const SignalInfoBytes& bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

void PutByCode(SignalInfoBytes& bytes, const SignalInfo& info) {
  Put(bytes, kUnion, info.code == SI_TIMER ? info.timer_id : info.pid);
  if (info.code == SI_TIMER) {
    Put(bytes, kUnion + 4, info.overrun);
  } else {
    Put(bytes, kUnion + 4, info.uid);
  }
  Put(bytes, kUnion + 8, info.value);
}

void PutChild(SignalInfoBytes& bytes, const SignalInfo& info) {
  Put(bytes, kUnion, info.pid);
  Put(bytes, kUnion + 4, info.uid);
  Put(bytes, kUnion + 8, info.status);
  Put(bytes, kUnion + 16, info.user_time);
  Put(bytes, kUnion + 24, info.system_time);
}

}  // namespace

SignalInfoBytes EncodeSignalInfo(const SignalInfo& info) {
  SignalInfoBytes bytes{};
  Put(bytes, 0, info.signal);
  Put(bytes, 4, info.error);
  Put(bytes, 8, info.code);
  if (info.raw) {
    std::copy(info.raw_bytes.begin(), info.raw_bytes.end(), bytes.begin() + kUnion);
    return bytes;
  }
  if (info.code <= 0 || info.code == SI_KERNEL) {
    if (info.code == SI_SIGIO) {
      Put(bytes, kUnion, info.band);
      Put(bytes, kUnion + 8, info.fd);
    } else {
      PutByCode(bytes, info);
    }
    if (info.code == SI_KERNEL && info.address != 0) Put(bytes, kUnion, info.address);
    return bytes;
  }
  switch (info.signal) {
    case SIGCHLD:
      PutChild(bytes, info);
      break;
    case SIGSEGV:
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGTRAP:
      Put(bytes, kUnion, info.address);
      Put(bytes, kUnion + 8, info.address_lsb);
      break;
    case SIGSYS:
      Put(bytes, kUnion, info.call_address);
      Put(bytes, kUnion + 8, info.syscall);
      Put(bytes, kUnion + 12, info.architecture);
      break;
    default:  // POLL_IN and friends with whatever signal F_SETSIG chose.
      Put(bytes, kUnion, info.band);
      Put(bytes, kUnion + 8, info.fd);
      break;
  }
  return bytes;
}

SignalInfo DecodeSignalInfo(const SignalInfoBytes& bytes) {
  SignalInfo info;
  info.signal = Fetch<int32_t>(bytes, 0);
  info.error = Fetch<int32_t>(bytes, 4);
  info.code = Fetch<int32_t>(bytes, 8);
  info.pid = Fetch<int32_t>(bytes, kUnion);
  info.uid = Fetch<uint32_t>(bytes, kUnion + 4);
  info.value = Fetch<uint64_t>(bytes, kUnion + 8);
  info.raw = true;
  std::copy(bytes.begin() + kUnion, bytes.end(), info.raw_bytes.begin());
  return info;
}

}  // namespace sentry
