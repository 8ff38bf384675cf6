// What calls on files cost the sentry itself, without a platform: calls are dispatched on a task
// that has no guest, over an overlay on the host's root, served by a gofer process.
//
//   file_bench [NAME...]
//
// One line per operation: name, nanoseconds in the sentry, nanoseconds natively, messages to the
// gofer per operation. What the hand-over between guest and sentry costs comes on top of the first.

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "gofer/protocol/client.h"
#include "sentry/fs/dev/devices.h"
#include "sentry/fs/gofer/gofer_file_system.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/vfs/vfs.h"
#include "test/bench/served_gofer.h"
#include "test/support/test_task.h"

namespace {

// Short ones, so that some of them have a CPU for themselves on a busy machine.
constexpr int kBatches = 60;

int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void Must(bool condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "file_bench: %s failed\n", what);
  exit(1);
}

// The least of several batches, per operation.
double Least(int iterations, const std::function<void()>& operation) {
  std::vector<double> batches;
  iterations = std::max(1, iterations / 30);
  for (int i = 0; i < iterations; ++i) operation();
  for (int batch = 0; batch < kBatches; ++batch) {
    const int64_t start = NowNs();
    for (int i = 0; i < iterations; ++i) operation();
    batches.push_back(static_cast<double>(NowNs() - start) / iterations);
  }
  return *std::min_element(batches.begin(), batches.end());
}

class Bench {
 public:
  explicit Bench(std::vector<std::string> only) : only_(std::move(only)) {
    auto ends = gofer::CreateChannel();
    Must(ends.ok(), "CreateChannel");
    const pid_t pid = fork();
    if (pid == 0) bench::ServeGofer(*std::move(ends), "/", true);
    ends->server_socket.Reset();
    auto client = gofer::Client::Create(std::move(ends->memory), std::move(ends->client_socket));
    Must(client.ok(), "the gofer's client");
    client_ = *std::move(client);
    task_ = std::make_unique<test::TestTask>();
    auto lower = sentry::GoferFileSystem::Create(client_, {.attach_name = "root"});
    Must(lower.ok(), "attaching");
    auto overlay = sentry::Overlay::Create(
        lower.value(), sentry::Tmpfs::Create(task_->kernel().pool(), task_->kernel().clock(), {}));
    Must(overlay.ok(), "the overlay");
    sentry::Vfs& vfs = task_->kernel().vfs();
    vfs.SetCharacterDeviceOpener(sentry::NewDeviceOpener(nullptr, nullptr));
    Must(task_->Call(SYS_mkdir, Text("/o"), 0755) == 0, "mkdir");
    auto at = vfs.WalkAsKernel("/o");
    Must(vfs.MountAt(at.value(), overlay.value(), "none", 0).ok(), "mount");
    Must(task_->Call(SYS_chroot, Text("/o")) == 0 && task_->Call(SYS_chdir, Text("/")) == 0,
         "chroot");
    auto dev = sentry::Tmpfs::Create(task_->kernel().pool(), task_->kernel().clock(), {});
    Must(sentry::PopulateDev(*dev->root(), false).ok(), "dev");
    auto dev_at = vfs.Walk(sentry::Caller(task_->task()), {}, "/dev", {});
    Must(dev_at.ok() && vfs.MountAt(dev_at.value(), dev, "dev", 0).ok(), "mount of /dev");
  }

  // Made calls go to the sentry or, natively, to the host: the same arguments, with addresses that
  // `Area` and `Text` give.
  template <typename... Args>
  int64_t Call(uint64_t number, Args... args) {
    if (native_) {
      const long result = syscall(static_cast<long>(number), args...);
      return result;
    }
    return task_->Call(number, args...);
  }
  uint64_t Text(const char* text) {
    if (native_) return reinterpret_cast<uint64_t>(text);
    // Each text has a place of its own, so that what is measured does not include the copy.
    for (const auto& [known, address] : texts_) {
      if (known == text) return address;
    }
    const uint64_t address = test::TestTask::kPage + texts_bytes_;
    task_->PokeString(address, text);
    texts_bytes_ += strlen(text) + 1;
    texts_.emplace_back(text, address);
    return address;
  }
  uint64_t Area() {
    return native_ ? reinterpret_cast<uint64_t>(native_area_) : test::TestTask::kArea;
  }

  // Puts bytes at the start of the area.
  void Fill(const void* data, size_t bytes) {
    if (native_) {
      memcpy(native_area_, data, bytes);
    } else {
      task_->PokeBytes(Area(), std::as_bytes(std::span(static_cast<const char*>(data), bytes)));
    }
  }

  // `prepare` gives an operation, after set-up on the side that is measured.
  void Run(const char* name, int iterations,
           const std::function<std::function<void()>(Bench&)>& prepare) {
    if (!only_.empty() && std::find(only_.begin(), only_.end(), name) == only_.end()) return;
    native_ = false;
    const std::function<void()> ours = prepare(*this);
    ours();
    const uint64_t messages = client_->messages_sent();
    const double sentry_ns = Least(iterations, ours);
    const double sent = static_cast<double>(client_->messages_sent() - messages) /
                        (std::max(1, iterations / 30) * (kBatches + 1));
    native_ = true;
    const double native_ns = Least(iterations, prepare(*this));
    native_ = false;
    printf("%-24s %9.0f %9.0f   x%.2f   %.3f messages\n", name, sentry_ns, native_ns,
           sentry_ns / native_ns, sent);
    fflush(stdout);
  }

 private:
  const std::vector<std::string> only_;
  std::shared_ptr<gofer::Client> client_;
  std::unique_ptr<test::TestTask> task_;
  bool native_ = false;
  std::vector<std::pair<std::string, uint64_t>> texts_;
  uint64_t texts_bytes_ = 0;
  alignas(4096) char native_area_[test::TestTask::kAreaBytes] = {};
};

void Names(Bench& bench) {
  bench.Run("stat", 20000, [](Bench& b) {
    const uint64_t path = b.Text("/usr/bin/env"), out = b.Area();
    return [=, &b] { Must(b.Call(SYS_stat, path, out) == 0, "stat"); };
  });
  bench.Run("stat_by_link", 20000, [](Bench& b) {
    const uint64_t path = b.Text("/bin/env"), out = b.Area();
    return [=, &b] { Must(b.Call(SYS_stat, path, out) == 0, "stat"); };
  });
  bench.Run("stat_missing", 20000, [](Bench& b) {
    const uint64_t path = b.Text("/usr/bin/no-such-file"), out = b.Area();
    return [=, &b] { Must(b.Call(SYS_stat, path, out) != 0, "stat"); };
  });
  bench.Run("stat_dev_null", 20000, [](Bench& b) {
    const uint64_t path = b.Text("/dev/null"), out = b.Area();
    return [=, &b] { Must(b.Call(SYS_stat, path, out) == 0, "stat"); };
  });
  bench.Run("access", 20000, [](Bench& b) {
    const uint64_t path = b.Text("/usr/bin/env");
    return [=, &b] { Must(b.Call(SYS_access, path, R_OK) == 0, "access"); };
  });
  bench.Run("open_close", 10000, [](Bench& b) {
    const uint64_t path = b.Text("/usr/bin/env");
    return [=, &b] {
      const int64_t fd = b.Call(SYS_openat, AT_FDCWD, path, O_RDONLY, 0);
      Must(fd >= 0 && b.Call(SYS_close, fd) == 0, "open");
    };
  });
  bench.Run("open_close_directory", 10000, [](Bench& b) {
    const uint64_t path = b.Text("/usr/lib");
    return [=, &b] {
      const int64_t fd = b.Call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
      Must(fd >= 0 && b.Call(SYS_close, fd) == 0, "open");
    };
  });
  bench.Run("list_directory", 1000, [](Bench& b) {
    const uint64_t path = b.Text("/usr/bin"), out = b.Area();
    return [=, &b] {
      const int64_t fd = b.Call(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
      while (b.Call(SYS_getdents64, fd, out, 32768) > 0) {
      }
      Must(fd >= 0 && b.Call(SYS_close, fd) == 0, "open");
    };
  });
}

void Changes(Bench& bench) {
  bench.Run("create_unlink", 3000, [](Bench& b) {
    const uint64_t directory = b.Text("/tmp/file_bench.d"), path = b.Text("/tmp/file_bench.d/new");
    b.Call(SYS_mkdir, directory, 0700);
    return [=, &b] {
      const int64_t fd = b.Call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL, 0600);
      Must(fd >= 0 && b.Call(SYS_close, fd) == 0, "create");
      Must(b.Call(SYS_unlink, path) == 0, "unlink");
    };
  });
  bench.Run("create_write_unlink", 3000, [](Bench& b) {
    const uint64_t path = b.Text("/tmp/file_bench.d/new"), data = b.Area();
    return [=, &b] {
      const int64_t fd = b.Call(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL, 0600);
      Must(b.Call(SYS_write, fd, data, 4096) == 4096, "write");
      Must(fd >= 0 && b.Call(SYS_close, fd) == 0, "create");
      Must(b.Call(SYS_unlink, path) == 0, "unlink");
    };
  });
  bench.Run("mkdir_rmdir", 3000, [](Bench& b) {
    const uint64_t path = b.Text("/tmp/file_bench.d/dir");
    return [=, &b] {
      Must(b.Call(SYS_mkdir, path, 0700) == 0 && b.Call(SYS_rmdir, path) == 0, "mkdir");
    };
  });
  bench.Run("rename", 3000, [](Bench& b) {
    const uint64_t from = b.Text("/tmp/file_bench.d/from"), to = b.Text("/tmp/file_bench.d/to");
    b.Call(SYS_close, b.Call(SYS_openat, AT_FDCWD, from, O_WRONLY | O_CREAT, 0600));
    return [=, &b] {
      Must(b.Call(SYS_rename, from, to) == 0 && b.Call(SYS_rename, to, from) == 0, "rename");
    };
  });
}

void Data(Bench& bench) {
  const auto opened = [](Bench& b, const char* path, int flags) {
    const int64_t fd = b.Call(SYS_openat, AT_FDCWD, b.Text(path), flags, 0600);
    Must(fd >= 0, path);
    return fd;
  };
  bench.Run("fstat", 20000, [&](Bench& b) {
    const int64_t fd = opened(b, "/bin/bash", O_RDONLY);
    const uint64_t out = b.Area();
    return [=, &b] { Must(b.Call(SYS_fstat, fd, out) == 0, "fstat"); };
  });
  bench.Run("lseek", 20000, [&](Bench& b) {
    const int64_t fd = opened(b, "/bin/bash", O_RDONLY);
    return [=, &b] { Must(b.Call(SYS_lseek, fd, 0, SEEK_SET) == 0, "lseek"); };
  });
  bench.Run("pread_4k_host", 20000, [&](Bench& b) {
    const int64_t fd = opened(b, "/bin/bash", O_RDONLY);
    const uint64_t out = b.Area();
    return [=, &b] { Must(b.Call(SYS_pread64, fd, out, 4096, 8192) == 4096, "pread"); };
  });
  bench.Run("pread_64k_host", 5000, [&](Bench& b) {
    const int64_t fd = opened(b, "/bin/bash", O_RDONLY);
    const uint64_t out = b.Area();
    return [=, &b] { Must(b.Call(SYS_pread64, fd, out, 65536, 8192) == 65536, "pread"); };
  });
  bench.Run("pwrite_4k", 10000, [&](Bench& b) {
    const int64_t fd = opened(b, "/tmp/file_bench.d/file", O_RDWR | O_CREAT | O_TRUNC);
    const uint64_t data = b.Area();
    return [=, &b] { Must(b.Call(SYS_pwrite64, fd, data, 4096, 0) == 4096, "pwrite"); };
  });
  bench.Run("pread_4k", 10000, [&](Bench& b) {
    const int64_t fd = opened(b, "/tmp/file_bench.d/file", O_RDWR | O_CREAT | O_TRUNC);
    const uint64_t data = b.Area();
    Must(b.Call(SYS_pwrite64, fd, data, 4096, 0) == 4096, "pwrite");
    return [=, &b] { Must(b.Call(SYS_pread64, fd, data, 4096, 0) == 4096, "pread"); };
  });
  bench.Run("write_64k_truncate", 2000, [&](Bench& b) {
    const int64_t fd = opened(b, "/tmp/file_bench.d/file", O_RDWR | O_CREAT | O_TRUNC);
    const uint64_t data = b.Area();
    return [=, &b] {
      Must(b.Call(SYS_pwrite64, fd, data, 65536, 0) == 65536, "pwrite");
      Must(b.Call(SYS_ftruncate, fd, 0) == 0, "ftruncate");
    };
  });
  bench.Run("write_null", 20000, [&](Bench& b) {
    const int64_t fd = opened(b, "/dev/null", O_WRONLY);
    const uint64_t data = b.Area();
    return [=, &b] { Must(b.Call(SYS_write, fd, data, 1) == 1, "write"); };
  });
  bench.Run("fsync", 50, [&](Bench& b) {
    const int64_t fd = opened(b, "/dev/shm/../../tmp/file_bench.d/file", O_RDWR | O_CREAT);
    return [=, &b] { Must(b.Call(SYS_fdatasync, fd) == 0, "fdatasync"); };
  });
  bench.Run("epoll_wait", 10000, [&](Bench& b) {
    const int64_t event = b.Call(SYS_eventfd2, 1, 0);
    const int64_t poller = b.Call(SYS_epoll_create1, 0);
    const uint64_t out = b.Area();
    epoll_event interest{};
    interest.events = EPOLLIN;
    b.Fill(&interest, sizeof(interest));
    Must(b.Call(SYS_epoll_ctl, poller, EPOLL_CTL_ADD, event, out) == 0, "epoll_ctl");
    return [=, &b] { Must(b.Call(SYS_epoll_wait, poller, out, 1, -1) == 1, "epoll_wait"); };
  });
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // As the released sentry.
  Bench bench(std::vector<std::string>(argv + 1, argv + argc));
  printf("%-24s %9s %9s\n", "operation", "ns", "native");
  Names(bench);
  Changes(bench);
  Data(bench);
}
