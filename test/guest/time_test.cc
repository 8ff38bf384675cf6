// Clocks, sleeps, interval timers and POSIX timers.

#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <thread>

#include "catch2/catch.hpp"
#include "test/guest/events_support.h"

namespace {

using test::Child;

int64_t Ns(const timespec& time) { return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec; }
int64_t Read(clockid_t clock) {
  timespec now{};
  if (syscall(SYS_clock_gettime, clock, &now) != 0) return -1;
  return Ns(now);
}
void Spin(int rounds) {
  for (int i = 0; i < rounds; ++i) asm volatile("" ::: "memory");
}
void Burn(int64_t ns) {
  const int64_t until = Read(CLOCK_THREAD_CPUTIME_ID) + ns;
  while (Read(CLOCK_THREAD_CPUTIME_ID) < until) Spin(20'000);
}

}  // namespace

TEST_CASE("every clock goes forward and has a resolution", "[time]") {
  const clockid_t clock = GENERATE(CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW,
                                   CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME,
                                   CLOCK_TAI, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID);
  CAPTURE(clock);
  const int64_t first = Read(clock);
  CHECK(first >= 0);
  CHECK(Read(clock) >= first);
  timespec resolution{};
  CHECK(syscall(SYS_clock_getres, clock, &resolution) == 0);
  CHECK(Ns(resolution) > 0);
  CHECK(Ns(resolution) <= 10'000'000);
  CHECK(syscall(SYS_clock_getres, clock, nullptr) == 0);
}

TEST_CASE("what is no clock is refused", "[time]") {
  timespec now{};
  CHECK(syscall(SYS_clock_gettime, 77, &now) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_clock_getres, 77, &now) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, 8) == -1);
  CHECK(errno == EFAULT);
  CHECK(syscall(SYS_clock_settime, CLOCK_MONOTONIC, &now) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("the vDSO and the system call tell the same time", "[time]") {
  timespec fast{};
  const int64_t before = Read(CLOCK_MONOTONIC);
  REQUIRE(clock_gettime(CLOCK_MONOTONIC, &fast) == 0);
  const int64_t after = Read(CLOCK_MONOTONIC);
  CHECK(before <= Ns(fast));
  CHECK(Ns(fast) <= after);
  timeval day{};
  REQUIRE(gettimeofday(&day, nullptr) == 0);
  CHECK(std::abs(day.tv_sec - time(nullptr)) <= 1);
}

TEST_CASE("CPU clocks count work, not sleep", "[time]") {
  const int64_t thread_before = Read(CLOCK_THREAD_CPUTIME_ID);
  const int64_t process_before = Read(CLOCK_PROCESS_CPUTIME_ID);
  test::SleepMs(100);
  CHECK(Read(CLOCK_THREAD_CPUTIME_ID) - thread_before < 60'000'000);
  const int64_t wall = Read(CLOCK_MONOTONIC);
  while (Read(CLOCK_MONOTONIC) - wall < 200'000'000) {
  }
  CHECK(Read(CLOCK_THREAD_CPUTIME_ID) - thread_before > 20'000'000);
  CHECK(Read(CLOCK_PROCESS_CPUTIME_ID) - process_before > 20'000'000);
}

TEST_CASE("the CPU clock of a process has an id", "[time]") {
  clockid_t clock = 0;
  REQUIRE(clock_getcpuclockid(getpid(), &clock) == 0);
  CHECK(Read(clock) >= 0);
  REQUIRE(pthread_getcpuclockid(pthread_self(), &clock) == 0);
  CHECK(Read(clock) >= 0);
}

TEST_CASE("nanosleep sleeps as long as it was told", "[time]") {
  const int64_t before = Read(CLOCK_MONOTONIC);
  const timespec time{0, 20'000'000};
  CHECK(nanosleep(&time, nullptr) == 0);
  CHECK(Read(CLOCK_MONOTONIC) - before >= 20'000'000);
  const timespec bad{0, 1'000'000'000};
  CHECK(nanosleep(&bad, nullptr) == -1);
  CHECK(errno == EINVAL);
  const timespec negative{-1, 0};
  CHECK(nanosleep(&negative, nullptr) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("an interrupted sleep tells what is left", "[time]") {
  const test::CountSignals counter(SIGUSR1, SA_RESTART);
  const test::SignalSoon soon(SIGUSR1, 40);
  const timespec time{2, 0};
  timespec left{};
  CHECK(nanosleep(&time, &left) == -1);
  CHECK(errno == EINTR);
  CHECK(Ns(left) > 1'000'000'000);
  CHECK(Ns(left) < 2'000'000'000);
}

TEST_CASE("an absolute sleep ends at its time, on either clock", "[time]") {
  for (const clockid_t clock : {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME}) {
    CAPTURE(clock);
    timespec until{};
    clock_gettime(clock, &until);
    until.tv_nsec += 20'000'000;
    if (until.tv_nsec >= 1'000'000'000) until.tv_nsec -= 1'000'000'000, ++until.tv_sec;
    CHECK(clock_nanosleep(clock, TIMER_ABSTIME, &until, nullptr) == 0);
    CHECK(Read(clock) >= Ns(until));
    CHECK(clock_nanosleep(clock, TIMER_ABSTIME, &until, nullptr) == 0);
  }
  timespec time{};
  CHECK(syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &time, nullptr) == -1);
  CHECK((errno == EINVAL || errno == EOPNOTSUPP));
}

TEST_CASE("a stop in the middle does not prolong a sleep", "[time]") {
  Child child([] {
    const int64_t before = test::NowMs();
    const timespec time{0, 300'000'000};
    if (nanosleep(&time, nullptr) != 0) return 1;
    const int64_t took = test::NowMs() - before;
    return took >= 300 && took < 2000 ? 0 : 2;
  });
  test::SleepMs(60);
  kill(child.pid(), SIGSTOP);
  test::SleepMs(60);
  kill(child.pid(), SIGCONT);
  CHECK(child.Wait() == 0);
}

TEST_CASE("a real interval timer signals again and again", "[time][itimer]") {
  const test::CountSignals counter(SIGALRM);
  const itimerval every_10ms{{0, 10'000}, {0, 10'000}};
  REQUIRE(setitimer(ITIMER_REAL, &every_10ms, nullptr) == 0);
  const int64_t before = test::NowMs();
  while (test::g_signals < 5 && test::NowMs() - before < 3000) pause();
  const int64_t took = test::NowMs() - before;
  itimerval current{};
  CHECK(getitimer(ITIMER_REAL, &current) == 0);
  CHECK(current.it_interval.tv_usec == 10'000);
  CHECK(current.it_value.tv_usec <= 10'000);
  CHECK(current.it_value.tv_usec > 0);
  const itimerval off{};
  itimerval old{};
  CHECK(setitimer(ITIMER_REAL, &off, &old) == 0);
  CHECK(old.it_interval.tv_usec == 10'000);
  CHECK(test::g_signals >= 5);
  CHECK(took >= 45);
  CHECK(getitimer(ITIMER_REAL, &current) == 0);
  CHECK(current.it_value.tv_sec == 0);
  CHECK(current.it_value.tv_usec == 0);
}

TEST_CASE("itimers refuse other kinds and odd times", "[time][itimer]") {
  itimerval value{};
  CHECK(getitimer(static_cast<__itimer_which_t>(3), &value) == -1);
  CHECK(errno == EINVAL);
  value.it_value.tv_usec = 1'000'000;
  CHECK(setitimer(ITIMER_REAL, &value, nullptr) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("alarm tells what was left of the one before", "[time][itimer]") {
  const test::CountSignals counter(SIGALRM);
  CHECK(alarm(100) == 0);
  CHECK(alarm(1) == 100);
  CHECK(alarm(0) == 1);
  CHECK(alarm(0) == 0);
}

TEST_CASE("profiling timers follow CPU time", "[time][itimer]") {
  const int which = GENERATE(0, 1);
  const int signal = which == 0 ? SIGVTALRM : SIGPROF;
  const test::CountSignals counter(signal);
  const itimerval every_20ms{{0, 20'000}, {0, 20'000}};
  const auto timer = which == 0 ? ITIMER_VIRTUAL : ITIMER_PROF;
  REQUIRE(setitimer(timer, &every_20ms, nullptr) == 0);
  const int64_t before = test::NowMs();
  while (test::g_signals < 2 && test::NowMs() - before < 10'000) Spin(100'000);
  const itimerval off{};
  setitimer(timer, &off, nullptr);
  CHECK(test::g_signals >= 2);
}

TEST_CASE("a POSIX timer sends its signal with its value", "[time][timer]") {
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN);
  sigprocmask(SIG_BLOCK, &set, &old);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN;
  event.sigev_value.sival_int = 4711;
  timer_t timer{};
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  const itimerspec once{{0, 0}, {0, 10'000'000}};
  REQUIRE(timer_settime(timer, 0, &once, nullptr) == 0);
  siginfo_t info{};
  const timespec limit{3, 0};
  CHECK(sigtimedwait(&set, &info, &limit) == SIGRTMIN);
  CHECK(info.si_code == SI_TIMER);
  CHECK(info.si_value.sival_int == 4711);
  CHECK(info.si_overrun == 0);
  itimerspec current{};
  CHECK(timer_gettime(timer, &current) == 0);
  CHECK(Ns(current.it_value) == 0);
  CHECK(timer_delete(timer) == 0);
  sigprocmask(SIG_SETMASK, &old, nullptr);
}

TEST_CASE("expiries that nobody collects are counted as overruns", "[time][timer]") {
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 1);
  sigprocmask(SIG_BLOCK, &set, &old);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGRTMIN + 1;
  timer_t timer{};
  REQUIRE(timer_create(CLOCK_REALTIME, &event, &timer) == 0);
  const itimerspec every_5ms{{0, 5'000'000}, {0, 5'000'000}};
  REQUIRE(timer_settime(timer, 0, &every_5ms, nullptr) == 0);
  test::SleepMs(120);
  siginfo_t info{};
  const timespec limit{3, 0};
  CHECK(sigtimedwait(&set, &info, &limit) == SIGRTMIN + 1);
  CHECK(info.si_overrun >= 15);
  CHECK(info.si_overrun <= 200);
  CHECK(timer_getoverrun(timer) == info.si_overrun);
  itimerspec current{};
  CHECK(timer_gettime(timer, &current) == 0);
  CHECK(Ns(current.it_value) > 0);
  CHECK(Ns(current.it_value) <= 5'000'000);
  CHECK(timer_delete(timer) == 0);
  const timespec none{};
  while (sigtimedwait(&set, &info, &none) > 0) {
  }
  sigprocmask(SIG_SETMASK, &old, nullptr);
}

TEST_CASE("a timer can be aimed at a thread, or at nobody", "[time][timer]") {
  sigset_t set, old;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 2);
  sigprocmask(SIG_BLOCK, &set, &old);
  std::atomic<bool> got{false};
  std::thread thread([&] {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGRTMIN + 2;
    event._sigev_un._tid = static_cast<int>(syscall(SYS_gettid));
    timer_t timer{};
    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) return;
    const itimerspec once{{0, 0}, {0, 5'000'000}};
    timer_settime(timer, 0, &once, nullptr);
    const timespec limit{3, 0};
    got = sigtimedwait(&set, nullptr, &limit) == SIGRTMIN + 2;
    timer_delete(timer);
  });
  thread.join();
  CHECK(got);
  sigevent event{};
  event.sigev_notify = SIGEV_NONE;
  timer_t timer{};
  REQUIRE(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
  const itimerspec later{{0, 0}, {100, 0}};
  REQUIRE(timer_settime(timer, 0, &later, nullptr) == 0);
  itimerspec current{};
  CHECK(timer_gettime(timer, &current) == 0);
  CHECK(current.it_value.tv_sec >= 98);
  CHECK(timer_delete(timer) == 0);
  sigprocmask(SIG_SETMASK, &old, nullptr);
}

TEST_CASE("a timer on CPU time fires when the process has worked", "[time][timer]") {
  const test::CountSignals counter(SIGUSR2);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR2;
  timer_t timer{};
  REQUIRE(timer_create(CLOCK_PROCESS_CPUTIME_ID, &event, &timer) == 0);
  const itimerspec once{{0, 0}, {0, 30'000'000}};
  REQUIRE(timer_settime(timer, 0, &once, nullptr) == 0);
  Burn(15'000'000);
  const int64_t before = test::NowMs();
  while (test::g_signals == 0 && test::NowMs() - before < 5000) Burn(5'000'000);
  CHECK(test::g_signals == 1);
  CHECK(timer_delete(timer) == 0);
}

TEST_CASE("timer calls refuse what is not there", "[time][timer]") {
  itimerspec value{};
  int id = 0;
  CHECK(syscall(SYS_timer_gettime, 123456, &value) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_timer_delete, 123456) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_timer_create, 77, nullptr, &id) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC_COARSE, nullptr, &id) == -1);
  CHECK(errno == EOPNOTSUPP);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = 65;
  CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &id) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_timer_create, CLOCK_MONOTONIC, nullptr, 8) == -1);
  CHECK(errno == EFAULT);
}

TEST_CASE("timers are not inherited by fork", "[time][timer]") {
  const test::CountSignals counter(SIGALRM);
  REQUIRE(alarm(100) == 0);
  Child child([] { return static_cast<int>(alarm(0)); });
  CHECK(child.Wait() == 0);
  CHECK(alarm(0) == 100);
}

TEST_CASE("adjtimex reads", "[time]") {
  timex state{};
  CHECK(adjtimex(&state) >= 0);
  CHECK(state.tick >= 9000);
  CHECK(state.tick <= 11000);
}
