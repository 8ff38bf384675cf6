// The costs of system calls and processes as a program sees them: one line "name nanoseconds" each.
// Runs natively and inside the sandbox; test/bench/compare puts the two side by side.
//
// Each figure is the least of several batches: what the operation costs when nothing else disturbs
// it. Operations that hand over between threads or processes report the median batch, since there
// the scheduler is part of the cost.

#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace {

int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void Must(bool condition, const char* what) {
  if (condition) return;
  perror(what);
  exit(1);
}

constexpr int kBatches = 7;

enum class Pick { kLeast, kMedian };

std::vector<std::string> g_only;

void Measure(const char* name, int iterations, Pick pick, const std::function<void(int)>& body) {
  if (!g_only.empty() && std::find(g_only.begin(), g_only.end(), name) == g_only.end()) return;
  std::vector<double> batches;
  body(std::max(1, iterations / 10));
  for (int batch = 0; batch < kBatches; ++batch) {
    const int64_t start = NowNs();
    body(iterations);
    batches.push_back(static_cast<double>(NowNs() - start) / iterations);
  }
  std::sort(batches.begin(), batches.end());
  printf("%s %.1f\n", name, pick == Pick::kLeast ? batches.front() : batches[kBatches / 2]);
  fflush(stdout);
}

template <typename F>
void Loop(const char* name, int iterations, F&& operation) {
  Measure(name, iterations, Pick::kLeast, [&](int count) {
    for (int i = 0; i < count; ++i) operation();
  });
}

void SystemCalls() {
  Loop("getppid", 20000, [] { syscall(SYS_getppid); });
  Loop("clock_gettime", 100000, [] {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
  });
  Loop("sched_getparam", 20000, [] {
    sched_param parameters{};
    sched_getparam(0, &parameters);
  });
}

void Files() {
  Must(mkdir("/tmp/bench.d", 0700) == 0 || errno == EEXIST, "mkdir /tmp/bench.d");
  char buffer[4096];
  const int host = open("/bin/bash", O_RDONLY);
  Must(host >= 0, "open /bin/bash");
  struct stat status{};
  Loop("fstat", 20000, [&] { fstat(host, &status); });
  Loop("stat", 20000, [&] { stat("/usr/bin/env", &status); });
  Loop("open_close", 10000, [] { close(open("/usr/bin/env", O_RDONLY)); });
  Loop("read_4k", 20000, [&] { Must(pread(host, buffer, sizeof(buffer), 8192) == 4096, "pread"); });
  const int made = open("/tmp/bench.d/file", O_RDWR | O_CREAT | O_TRUNC, 0600);
  Must(made >= 0, "open /tmp/bench.d/file");
  memset(buffer, 'x', sizeof(buffer));
  Loop("write_4k", 10000, [&] { Must(pwrite(made, buffer, sizeof(buffer), 0) == 4096, "pwrite"); });
  Loop("create_unlink", 3000, [] {
    close(open("/tmp/bench.d/new", O_WRONLY | O_CREAT | O_EXCL, 0600));
    unlink("/tmp/bench.d/new");
  });
  const int null = open("/dev/null", O_WRONLY);
  Loop("write_null", 20000, [&] { Must(write(null, buffer, 1) == 1, "write /dev/null"); });
  std::vector<char> large(1 << 20);
  const int source = open("/tmp/bench.d/large", O_RDWR | O_CREAT | O_TRUNC, 0600);
  Must(write(source, large.data(), large.size()) == 1 << 20, "write 1 MiB");
  Loop("read_1m", 200,
       [&] { Must(pread(source, large.data(), large.size(), 0) == 1 << 20, "pread 1 MiB"); });
  const int event = eventfd(1, 0);
  const int poller = epoll_create1(0);
  epoll_event interest{};
  interest.events = EPOLLIN;
  epoll_ctl(poller, EPOLL_CTL_ADD, event, &interest);
  Loop("epoll_wait", 10000, [&] { Must(epoll_wait(poller, &interest, 1, -1) == 1, "epoll_wait"); });
  for (int fd : {host, made, null, source, event, poller}) close(fd);
}

void PingPong() {
  int there[2], back[2];
  Must(pipe(there) == 0 && pipe(back) == 0, "pipe");
  const pid_t child = fork();
  if (child == 0) {
    char byte;
    close(there[1]);
    while (read(there[0], &byte, 1) == 1) Must(write(back[1], &byte, 1) == 1, "write");
    _exit(0);
  }
  close(there[0]);
  Measure("pipe_pingpong", 2000, Pick::kMedian, [&](int count) {
    char byte = 0;
    for (int i = 0; i < count; ++i)
      Must(write(there[1], &byte, 1) == 1 && read(back[0], &byte, 1) == 1, "ping");
  });
  close(there[1]);
  waitpid(child, nullptr, 0);
  close(back[0]), close(back[1]);

  static std::atomic<uint32_t> turn{0};
  static std::atomic<bool> stop{false};
  pthread_t thread;
  auto wait = [](uint32_t value) {
    syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
  };
  auto wake = [] { syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0); };
  pthread_create(
      &thread, nullptr,
      [](void*) -> void* {
        while (true) {
          while (turn.load() == 0)
            syscall(SYS_futex, &turn, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
          if (stop.load()) return nullptr;
          turn.store(0);
          syscall(SYS_futex, &turn, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
        }
      },
      nullptr);
  Measure("futex_pingpong", 2000, Pick::kMedian, [&](int count) {
    for (int i = 0; i < count; ++i) {
      turn.store(1);
      wake();
      while (turn.load() == 1) wait(1);
    }
  });
  stop.store(true);
  turn.store(1);
  wake();
  pthread_join(thread, nullptr);
}

void Memory() {
  Loop("mmap_touch_munmap_64k", 1000, [] {
    char* area = static_cast<char*>(
        mmap(nullptr, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    Must(area != MAP_FAILED, "mmap");
    for (int i = 0; i < 65536; i += 4096) area[i] = 1;
    munmap(area, 65536);
  });
  Measure("fault_4k", 8192, Pick::kLeast, [](int count) {
    const size_t bytes = static_cast<size_t>(count) * 4096;
    char* area = static_cast<char*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    Must(area != MAP_FAILED, "mmap");
    for (size_t i = 0; i < bytes; i += 4096) area[i] = 1;
    munmap(area, bytes);
  });
}

void Processes(const char* self) {
  static volatile sig_atomic_t handled = 0;
  signal(SIGUSR1, [](int) { handled = handled + 1; });
  Loop("signal_self", 5000, [] { kill(getpid(), SIGUSR1); });
  Measure("thread_create_join", 300, Pick::kMedian, [](int count) {
    for (int i = 0; i < count; ++i) {
      pthread_t thread;
      Must(pthread_create(
               &thread, nullptr, [](void*) -> void* { return nullptr; }, nullptr) == 0,
           "pthread_create");
      pthread_join(thread, nullptr);
    }
  });
  Measure("fork_exit_wait", 200, Pick::kMedian, [](int count) {
    for (int i = 0; i < count; ++i) {
      const pid_t child = fork();
      if (child == 0) _exit(0);
      Must(waitpid(child, nullptr, 0) == child, "waitpid");
    }
  });
  Measure("fork_exec_wait", 50, Pick::kMedian, [self](int count) {
    for (int i = 0; i < count; ++i) {
      const pid_t child = fork();
      if (child == 0) {
        execl(self, self, "--exit", nullptr);
        _exit(127);
      }
      int status = 0;
      Must(waitpid(child, &status, 0) == child && status == 0, "exec");
    }
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && strcmp(argv[1], "--exit") == 0) _exit(0);
  for (int i = 1; i < argc; ++i) g_only.emplace_back(argv[i]);
  SystemCalls();
  Files();
  PingPong();
  Memory();
  Processes("/proc/self/exe");
}
