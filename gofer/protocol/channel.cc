#include "gofer/protocol/channel.h"

#include <fcntl.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace gofer {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr size_t kPage = 4096;
constexpr size_t kLine = 64;
constexpr size_t kSlotHeaderBytes = kPage;
constexpr size_t kSlotBytes = kSlotHeaderBytes + 2 * kMessageBytesMax;
constexpr size_t kMemoryBytes = kPage + kSlots * kSlotBytes;
static_assert(kMessageBytesMax % kPage == 0);

// A sleeping client looks this often whether its peer is still there.
constexpr long kPeerCheckNs = 100'000'000;

// Values of Slot::state.
constexpr uint32_t kAnswered = 0;
constexpr uint32_t kWaiting = 1;
constexpr uint32_t kWaitingAsleep = 2;

long Futex(std::atomic<uint32_t>* word, int operation, uint32_t value, const timespec* timeout) {
  return syscall(SYS_futex, word, operation, value, timeout, nullptr, 0);
}

absl::Status HostError(const char* what) { return absl::ErrnoToStatus(errno, what); }

uint64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

bool HasSeveralCpus() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) > 1;
}

}  // namespace

struct Channel::Header {
  std::atomic<uint32_t> requests;
  std::atomic<uint32_t> client_cpu;  // 1 + the CPU of the last request, 0 for none.
  alignas(kLine) std::atomic<uint32_t> server_asleep;
  std::atomic<uint32_t> server_cpu;  // Likewise; where the server stays.
};

struct Channel::Slot {
  std::atomic<uint32_t> request_bytes;
  alignas(kLine) std::atomic<uint32_t> state;
  std::atomic<uint32_t> response_bytes;
};

absl::StatusOr<ChannelEnds> CreateChannel() {
  static_assert(std::atomic<uint32_t>::is_always_lock_free);
  ChannelEnds ends;
  ends.memory = base::Fd(memfd_create("ravelin-gofer", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!ends.memory) return HostError("memfd_create for the gofer channel");
  if (ftruncate(ends.memory.get(), kMemoryBytes) != 0) return HostError("gofer channel: ftruncate");
  if (fcntl(ends.memory.get(), F_ADD_SEALS, kSeals) != 0) return HostError("gofer channel: seals");
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
    return HostError("gofer channel: socketpair");
  }
  ends.client_socket = base::Fd(sockets[0]);
  ends.server_socket = base::Fd(sockets[1]);
  return ends;
}

absl::StatusOr<Channel> Channel::Map(base::Fd memory, base::Fd socket) {
  struct stat status{};
  if (fstat(memory.get(), &status) != 0) return HostError("gofer channel: fstat");
  if (status.st_size != static_cast<off_t>(kMemoryBytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("gofer channel: memory of ", status.st_size, " bytes, not ", kMemoryBytes));
  }
  const int seals = fcntl(memory.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return absl::InvalidArgumentError("gofer channel: the memory could be truncated by the peer");
  }
  void* base = mmap(nullptr, kMemoryBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (base == MAP_FAILED) return HostError("gofer channel: mmap");
  return Channel(std::move(memory), std::move(socket), static_cast<std::byte*>(base),
                 HasSeveralCpus() ? kDefaultSpinNs : 0);
}

Channel::Channel(base::Fd memory, base::Fd socket, std::byte* base, uint32_t spin_ns)
    : memory_(std::move(memory)), socket_(std::move(socket)), base_(base), spin_ns_(spin_ns) {}

Channel::Channel(Channel&& other) noexcept
    : memory_(std::move(other.memory_)),
      socket_(std::move(other.socket_)),
      base_(std::exchange(other.base_, nullptr)),
      spin_ns_(other.spin_ns_) {}

Channel::~Channel() {
  if (base_ != nullptr) munmap(base_, kMemoryBytes);
}

Channel::Header& Channel::header() const { return *reinterpret_cast<Header*>(base_); }

Channel::Slot& Channel::slot(size_t index) const {
  CHECK(index < kSlots);
  return *reinterpret_cast<Slot*>(base_ + kPage + index * kSlotBytes);
}

std::span<std::byte> Channel::RequestArea(size_t index) {
  return {reinterpret_cast<std::byte*>(&slot(index)) + kSlotHeaderBytes, kMessageBytesMax};
}

std::span<std::byte> Channel::ResponseArea(size_t index) {
  return {reinterpret_cast<std::byte*>(&slot(index)) + kSlotHeaderBytes + kMessageBytesMax,
          kMessageBytesMax};
}

template <typename Predicate>
bool Channel::Spin(Predicate ready) const {
  if (ready()) return true;
  if (spin_ns_ == 0) return false;
  const uint64_t start = NowNs();
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
      _mm_pause();
    }
  } while (NowNs() - start < spin_ns_);
  return false;
}

void Channel::Submit(size_t index, size_t bytes, int cpu) {
  Slot& mine = slot(index);
  header().client_cpu.store(static_cast<uint32_t>(cpu + 1), std::memory_order_relaxed);
  mine.state.store(kWaiting, std::memory_order_relaxed);
  mine.request_bytes.store(static_cast<uint32_t>(bytes), std::memory_order_relaxed);
  header().requests.fetch_or(uint32_t{1} << index, std::memory_order_seq_cst);
  // Pairs with WaitForRequests: it says "asleep" and then looks at `requests` once more.
  if (header().server_asleep.load(std::memory_order_seq_cst) == 0) return;
  if (header().server_asleep.exchange(0) == 0) return;
  // A peer that has gone is noticed in Await.
  (void)Ring();
}

bool Channel::Ring() {
  char bell = 0;
  iovec data = {&bell, sizeof(bell)};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  // sendmsg, which the sentry needs anyway: one system call fewer in its filter.
  if (sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
  // EAGAIN: it has bells enough to wake up.
  return errno == EAGAIN || errno == EINTR || errno == ENOBUFS || errno == ENOMEM;
}

base::Result<size_t> Channel::Await(size_t index, std::span<std::byte> out, int cpu) {
  Slot& mine = slot(index);
  const auto answered = [&] { return mine.state.load(std::memory_order_acquire) == kAnswered; };
  // Spinning would keep a server on the same CPU from answering.
  const bool together = cpu != kAnyCpu && header().server_cpu.load(std::memory_order_relaxed) ==
                                              static_cast<uint32_t>(cpu + 1);
  if (together || !Spin(answered)) {
    uint32_t expected = kWaiting;
    mine.state.compare_exchange_strong(expected, kWaitingAsleep);
    while (!answered()) {
      const timespec timeout = {0, kPeerCheckNs};
      if (Futex(&mine.state, FUTEX_WAIT, kWaitingAsleep, &timeout) == 0 || answered()) continue;
      // Donations in the socket would hide its end from a read; ringing once more tells.
      if (!Ring() && !answered()) return base::Errno(EPIPE);
      // Anything but these two is the peer playing with the word: it would keep us from sleeping.
      const uint32_t state = mine.state.load();
      if (state != kAnswered && state != kWaitingAsleep) return base::Errno(EBADMSG);
    }
  }
  const size_t bytes = mine.response_bytes.load(std::memory_order_relaxed);
  if (bytes > kMessageBytesMax || bytes > out.size()) return base::Errno(EBADMSG);
  std::memcpy(out.data(), ResponseArea(index).data(), bytes);
  return bytes;
}

base::Result<uint32_t> Channel::WaitForRequests() {
  Header& shared = header();
  const auto pending = [&] { return shared.requests.load(std::memory_order_relaxed) != 0; };
  while (true) {
    const bool together = FollowClient();
    if (together ? pending() : Spin(pending)) {
      return shared.requests.exchange(0, std::memory_order_acquire);
    }
    shared.server_asleep.store(1, std::memory_order_seq_cst);
    if (shared.requests.load(std::memory_order_seq_cst) == 0) {
      // A bell that rang for nothing costs one round.
      char bell;
      const ssize_t got = read(socket_.get(), &bell, sizeof(bell));
      if (got == 0 || (got < 0 && errno != EINTR)) return base::Errno(EPIPE);
    }
    shared.server_asleep.store(0, std::memory_order_relaxed);
  }
}

bool Channel::FollowClient() {
  const uint32_t wanted = header().client_cpu.load(std::memory_order_relaxed);
  // Not for a single request: with clients on several CPUs it would move each time.
  const bool twice = wanted == std::exchange(last_cpu_, wanted);
  if (wanted == own_cpu_ || !twice) return own_cpu_ != 0 && wanted == own_cpu_;
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (wanted >= 1 && wanted <= CPU_SETSIZE) {
    CPU_SET(wanted - 1, &cpus);
  } else {
    for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      CPU_SET(cpu, &cpus);  // The kernel takes those there are.
  }
  // A CPU that we may not use leaves us where we are.
  const bool moved = sched_setaffinity(0, sizeof(cpus), &cpus) == 0;
  own_cpu_ = moved && wanted <= CPU_SETSIZE ? wanted : 0;
  header().server_cpu.store(own_cpu_, std::memory_order_relaxed);
  return own_cpu_ != 0;
}

base::Result<size_t> Channel::TakeRequest(size_t index, std::span<std::byte> out) {
  const size_t bytes = slot(index).request_bytes.load(std::memory_order_acquire);
  if (bytes > kMessageBytesMax || bytes > out.size()) return base::Errno(EBADMSG);
  std::memcpy(out.data(), RequestArea(index).data(), bytes);
  return bytes;
}

void Channel::Respond(size_t index, size_t bytes) {
  Slot& theirs = slot(index);
  theirs.response_bytes.store(static_cast<uint32_t>(bytes), std::memory_order_relaxed);
  if (theirs.state.exchange(kAnswered) == kWaitingAsleep) {
    Futex(&theirs.state, FUTEX_WAKE, 1, nullptr);
  }
}

}  // namespace gofer
