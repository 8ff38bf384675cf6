#include "platform/stub/spawner.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "platform/base/check.h"
#include "platform/base/log.h"
#include "platform/base/user_addr.h"
#include "platform/stub/futex.h"
#include "platform/stub/layout.h"
#include "platform/stub/stub_calls.h"

namespace platform {
namespace {

using base::Errno;
using base::Result;

constexpr size_t kBootstrapStackBytes = 64 << 10;
constexpr int kSignalsMax = 64;

// Everything the bootstrap needs, so that it touches no memory of the sentry's but its stack.
struct Bootstrap {
  int image_fd;
  uint64_t text_bytes;
  uint64_t data_bytes;
  int control_fd;
  uint64_t mailbox_offset;
  StubEntries entries;
};

// struct sigaction as the kernel has it.
struct KernelSigaction {
  uint64_t handler;
  uint64_t flags;
  uint64_t restorer;
  uint64_t mask;
};

constexpr uint64_t kSaRestorer = 0x04000000;

bool SetSignals(const StubEntries& entries) {
  // Terminals and operators send signals to process groups; a stub ignores what it does not handle.
  // SIGCHLD ignored also means that nobody has to wait for dead stub processes.
  for (int signal = 1; signal <= kSignalsMax; signal++) {
    if (signal == SIGKILL || signal == SIGSTOP) continue;
    const KernelSigaction action{reinterpret_cast<uint64_t>(SIG_IGN), 0, 0, 0};
    if (syscall(SYS_rt_sigaction, signal, &action, nullptr, 8) != 0) return false;
  }
  for (int signal : kHandledSignals) {
    // See ravelin_stub_handler for why only the interrupt is blocked, and only in its own handler.
    const uint64_t nodefer = signal == kInterruptSignal ? 0 : SA_NODEFER;
    const KernelSigaction action{entries.handler, SA_SIGINFO | SA_ONSTACK | kSaRestorer | nodefer,
                                 entries.restorer, 0};
    if (syscall(SYS_rt_sigaction, signal, &action, nullptr, 8) != 0) return false;
  }
  return true;
}

bool MapFixed(uint64_t address, uint64_t bytes, int protection, int flags, int fd,
              uint64_t offset) {
  return mmap(reinterpret_cast<void*>(address), bytes, protection, flags | MAP_FIXED, fd,
              static_cast<off_t>(offset)) == reinterpret_cast<void*>(address);
}

bool MapStub(const Bootstrap& boot) {
  // The sentry's stack may lie where the stub goes; we run on another one.
  if (munmap(reinterpret_cast<void*>(STUB_START), STUB_END - STUB_START) != 0) return false;
  return MapFixed(STUB_TEXT, boot.text_bytes, PROT_READ | PROT_EXEC, MAP_PRIVATE, boot.image_fd,
                  0) &&
         MapFixed(STUB_DATA, boot.data_bytes, PROT_READ, MAP_PRIVATE, boot.image_fd,
                  STUB_TEXT_BYTES) &&
         MapFixed(STUB_MAILBOX, base::kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED,
                  boot.control_fd, boot.mailbox_offset) &&
         madvise(reinterpret_cast<void*>(STUB_MAILBOX), base::kPageSize, MADV_DONTFORK) == 0;
}

// In the child: a copy of the sentry becomes the spawner. Exit codes name the step that failed.
int BecomeSpawner(void* argument) {
  const Bootstrap boot = *static_cast<const Bootstrap*>(argument);
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) _exit(10);
  // Traced by the sentry, also where it changed its user id.
  if (prctl(PR_SET_DUMPABLE, 1) != 0) _exit(11);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(12);
  const rlimit no_core{0, 0};
  if (setrlimit(RLIMIT_CORE, &no_core) != 0) _exit(13);
  prctl(PR_SET_NAME, "ravelin-stub");
  // Out of the terminal's foreground group. The session stays the sentry's: the scheduler groups
  // threads by it (sched_autogroup), and sched_yield reaches only threads of the same group.
  syscall(SYS_setpgid, 0, 0);
  const uint64_t all_signals = ~uint64_t{0};
  if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all_signals, nullptr, 8) != 0) _exit(14);
  if (!SetSignals(boot.entries)) _exit(15);
  // The kernel writes to the sentry thread's rseq area whenever we are scheduled; it is about to
  // go. Fails where none is registered.
  constexpr uint32_t kRseqSignature = 0x53053053;
  constexpr uint32_t kRseqBytes = 32;
  syscall(SYS_rseq, static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset, kRseqBytes,
          RSEQ_FLAG_UNREGISTER, kRseqSignature);
  if (!MapStub(boot)) _exit(16);
  asm volatile("jmp *%0" : : "r"(boot.entries.spawner) : "memory");
  __builtin_unreachable();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Spawner>> Spawner::Create(MemoryPool& control,
                                                         const StubImage& image) {
  Result<PoolRange> mailbox = control.Allocate(base::kPageSize);
  if (!mailbox.ok()) return absl::ErrnoToStatus(mailbox.error().value(), "spawner: mailbox");
  new (control.Window(mailbox.value()).data())
      Mailbox{.request = 0,
              .done = 0,
              .reserved = 0,
              .control_fd = static_cast<uint64_t>(control.fd()),
              .command_offset = 0,
              .result = 0,
              .pidfd = -1};
  Bootstrap boot{.image_fd = image.memfd.get(),
                 .text_bytes = image.text_bytes,
                 .data_bytes = image.data_bytes,
                 .control_fd = control.fd(),
                 .mailbox_offset = mailbox.value().start,
                 .entries = GetStubEntries()};
  void* stack = mmap(nullptr, kBootstrapStackBytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) return absl::ErrnoToStatus(errno, "spawner: stack");
  pid_t pidfd = -1;
  const int pid = clone(BecomeSpawner, static_cast<char*>(stack) + kBootstrapStackBytes,
                        CLONE_FILES | CLONE_PIDFD | SIGCHLD, &boot, &pidfd);
  const int error = errno;
  munmap(stack, kBootstrapStackBytes);
  if (pid < 0) {
    control.DropReference(mailbox.value());
    return absl::ErrnoToStatus(error, "spawner: clone");
  }
  return std::unique_ptr<Spawner>(new Spawner(control, mailbox.value(), base::Fd(pidfd)));
}

Spawner::Spawner(MemoryPool& control, PoolRange mailbox_range, base::Fd pidfd)
    : control_(control),
      mailbox_range_(mailbox_range),
      mailbox_(*reinterpret_cast<Mailbox*>(control.Window(mailbox_range).data())),
      pidfd_(std::move(pidfd)) {}

Spawner::~Spawner() {
  syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
  siginfo_t info{};
  // ECHILD where SIGCHLD is ignored: nothing to wait for then.
  waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd_.get()), &info, WEXITED);
  control_.DropReference(mailbox_range_);
}

bool Spawner::IsGone() const {
  pollfd poller{pidfd_.get(), POLLIN, 0};
  return poll(&poller, 1, 0) != 0;
}

Result<SpawnedProcess> Spawner::Spawn(uint64_t command_offset) {
  absl::MutexLock lock(&mu_);
  mailbox_.command_offset = command_offset;
  const uint32_t request = mailbox_.request.load() + 1;
  mailbox_.request.store(request);
  FutexWake(mailbox_.request);
  for (;;) {
    const uint32_t done = mailbox_.done.load();
    if (done == request) break;
    // Nobody watches the spawner, so look now and then.
    const timespec timeout{0, 100'000'000};
    FutexWait(mailbox_.done, done, &timeout);
    if (mailbox_.done.load() != request && IsGone()) {
      LOG_ERROR("platform: the spawner of stub processes is gone");
      return Errno(ESRCH);
    }
  }
  const int64_t pid = mailbox_.result.load();
  if (pid < 0) return Errno(static_cast<int>(-pid));
  return SpawnedProcess{static_cast<pid_t>(pid), base::Fd(mailbox_.pidfd.load())};
}

}  // namespace platform
