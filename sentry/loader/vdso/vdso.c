/* The time without a system call: what linux-vdso.so.1 offers on x86-64 (vdso(7)). Runs in the
 * guest, with no libc, no relocations and no writable data. The names are those of Linux's; the
 * code asks the sentry whenever the page of parameters (vvar.h) does not answer. */

#include "sentry/loader/vdso/vvar.h"

#define EXPORT __attribute__((visibility("default")))
#define WEAK_ALIAS(name) __attribute__((weak, visibility("default"), alias(#name)))

extern const volatile struct VvarPage ravelin_vvar __attribute__((visibility("hidden")));

struct Timespec {
  int64_t seconds;
  int64_t nanoseconds;
};
struct Timeval {
  int64_t seconds;
  int64_t microseconds;
};
struct Timezone {
  int32_t minutes_west;
  int32_t dst_time;
};

enum {
  kRealtime = 0,
  kMonotonic = 1,
  kMonotonicRaw = 4,
  kRealtimeCoarse = 5,
  kMonotonicCoarse = 6,
  kBoottime = 7,
};
enum {
  kSysGettimeofday = 96,
  kSysTime = 201,
  kSysClockGettime = 228,
  kSysClockGetres = 229,
  kSysGetcpu = 309
};

static const int64_t kNsPerSecond = 1000000000;
/* A writer that was preempted in the middle is not waited for. */
static const int kAttemptsMax = 64;

static inline long SystemCall(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c)
                   : "rcx", "r11", "memory");
  return result;
}

static inline uint64_t ReadCounter(void) {
  uint32_t low, high;
  /* Not before what came before. */
  __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (uint64_t)high << 32 | low;
}

static inline uint64_t Scale(uint64_t ticks, uint64_t multiplier) {
  uint64_t low, high;
  __asm__("mulq %3" : "=a"(low), "=d"(high) : "a"(ticks), "rm"(multiplier) : "cc");
  return high << 32 | low >> 32;
}

/* 1 and the time, or 0: ask the sentry. */
static inline int ReadTime(int realtime, int64_t* out) {
  const volatile struct VvarPage* page = &ravelin_vvar;
  for (int attempt = 0; attempt < kAttemptsMax; attempt++) {
    const uint32_t before = __atomic_load_n(&page->sequence, __ATOMIC_ACQUIRE);
    if ((before & 1) != 0) {
      __asm__ volatile("pause");
      continue;
    }
    const uint32_t mode = page->mode;
    const uint64_t delta = ReadCounter() - page->tsc_base;
    const uint64_t valid = page->valid_ticks;
    const int64_t now = page->monotonic_base_ns + (int64_t)Scale(delta, page->multiplier);
    const int64_t offset = page->realtime_offset_ns;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (page->sequence != before) continue;
    if (mode != kVvarCounter || delta > valid) return 0;
    *out = realtime ? now + offset : now;
    return 1;
  }
  return 0;
}

EXPORT int __vdso_clock_gettime(int clock, struct Timespec* out) {
  int64_t now;
  int realtime;
  switch (clock) {
    case kRealtime:
    case kRealtimeCoarse:
      realtime = 1;
      break;
    case kMonotonic:
    case kMonotonicRaw:
    case kMonotonicCoarse:
    case kBoottime:
      realtime = 0;
      break;
    default:
      return (int)SystemCall(kSysClockGettime, clock, (long)out, 0);
  }
  if (!ReadTime(realtime, &now)) return (int)SystemCall(kSysClockGettime, clock, (long)out, 0);
  out->seconds = now / kNsPerSecond;
  out->nanoseconds = now % kNsPerSecond;
  return 0;
}

EXPORT int __vdso_gettimeofday(struct Timeval* time, struct Timezone* zone) {
  int64_t now;
  if (time != 0) {
    if (!ReadTime(1, &now)) return (int)SystemCall(kSysGettimeofday, (long)time, (long)zone, 0);
    time->seconds = now / kNsPerSecond;
    time->microseconds = now % kNsPerSecond / 1000;
  }
  if (zone != 0) {
    zone->minutes_west = 0;
    zone->dst_time = 0;
  }
  return 0;
}

EXPORT int64_t __vdso_time(int64_t* out) {
  int64_t now;
  if (!ReadTime(1, &now)) return SystemCall(kSysTime, (long)out, 0, 0);
  now /= kNsPerSecond;
  if (out != 0) *out = now;
  return now;
}

EXPORT int __vdso_clock_getres(int clock, struct Timespec* out) {
  switch (clock) {
    case kRealtime:
    case kMonotonic:
    case kMonotonicRaw:
    case kBoottime:
      if (out != 0) {
        out->seconds = 0;
        out->nanoseconds = 1;
      }
      return 0;
    default:
      return (int)SystemCall(kSysClockGetres, clock, (long)out, 0);
  }
}

/* The CPU is the sentry's to tell: it may show fewer than the host has. */
EXPORT long __vdso_getcpu(unsigned* cpu, unsigned* node, void* unused) {
  return SystemCall(kSysGetcpu, (long)cpu, (long)node, (long)unused);
}

int clock_gettime(int, struct Timespec*) WEAK_ALIAS(__vdso_clock_gettime);
int gettimeofday(struct Timeval*, struct Timezone*) WEAK_ALIAS(__vdso_gettimeofday);
int64_t time(int64_t*) WEAK_ALIAS(__vdso_time);
int clock_getres(int, struct Timespec*) WEAK_ALIAS(__vdso_clock_getres);
long getcpu(unsigned*, unsigned*, void*) WEAK_ALIAS(__vdso_getcpu);

/* Where a handler without a restorer of its own returns to. */
__asm__(
    ".text\n"
    ".globl __kernel_rt_sigreturn\n"
    ".type __kernel_rt_sigreturn, @function\n"
    "nop\n"
    "__kernel_rt_sigreturn:\n"
    "  mov $15, %eax\n"
    "  syscall\n"
    ".size __kernel_rt_sigreturn, . - __kernel_rt_sigreturn\n");
