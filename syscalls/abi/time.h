#pragma once

// <linux/time_types.h>, <linux/time.h>, <linux/timex.h>

#include <cstdint>

namespace syscalls::abi {

struct Timespec {
  int64_t tv_sec = 0;
  int64_t tv_nsec = 0;
};
struct Timeval {
  int64_t tv_sec = 0;
  int64_t tv_usec = 0;
};
struct Timezone {
  int32_t tz_minuteswest = 0;
  int32_t tz_dsttime = 0;
};
struct Itimerspec {
  Timespec it_interval;
  Timespec it_value;
};
struct Itimerval {
  Timeval it_interval;
  Timeval it_value;
};
// struct sigevent
struct Sigevent {
  uint64_t sigev_value = 0;
  int32_t sigev_signo = 0;
  int32_t sigev_notify = 0;
  int32_t sigev_notify_thread_id = 0;
  int32_t pad[11] = {};
};
// struct timex
struct Timex {
  uint32_t modes = 0;
  uint32_t pad0 = 0;
  int64_t offset = 0;
  int64_t freq = 0;
  int64_t maxerror = 0;
  int64_t esterror = 0;
  int32_t status = 0;
  uint32_t pad1 = 0;
  int64_t constant = 0;
  int64_t precision = 0;
  int64_t tolerance = 0;
  Timeval time;
  int64_t tick = 0;
  int64_t ppsfreq = 0;
  int64_t jitter = 0;
  int32_t shift = 0;
  uint32_t pad2 = 0;
  int64_t stabil = 0;
  int64_t jitcnt = 0;
  int64_t calcnt = 0;
  int64_t errcnt = 0;
  int64_t stbcnt = 0;
  int32_t tai = 0;
  int32_t pad3[11] = {};
};
static_assert(sizeof(Sigevent) == 64);
static_assert(sizeof(Timex) == 208);

}  // namespace syscalls::abi
