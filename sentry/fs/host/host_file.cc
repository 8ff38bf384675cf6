#include "sentry/fs/host/host_file.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "sentry/fs/synthetic/synthetic.h"
#include "sentry/kernel/host_poller.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"

namespace sentry {

class HostFileSystem : public SyntheticFileSystem {
 public:
  explicit HostFileSystem(const Clock& clock)
      : SyntheticFileSystem({.type_name = "hostfs", .magic = 0x00c0ffee}, clock) {}
};

namespace {

// A terminal takes at least this much at once when it polls writable.
constexpr size_t kTerminalWriteBytes = 256;
constexpr size_t kHostIoBytesMax = size_t{1} << 20;

Timestamp TimestampOf(const timespec& time) {
  return {time.tv_sec, static_cast<uint32_t>(time.tv_nsec)};
}

// The host's side, shared by every guest file that was opened from it.
class HostDescriptor {
 public:
  HostDescriptor(Kernel& kernel, base::Fd fd, uint32_t mode, uint32_t flags)
      : fd_(std::move(fd)), mode_(mode), flags_(flags), poller_(kernel.host_poller()) {
    // Regular files are refused: they never block.
    polled_ = poller_.Add(fd_.get(), queue_).ok();
  }
  ~HostDescriptor() {
    if (polled_) poller_.Remove(fd_.get());
  }

  int fd() const { return fd_.get(); }
  uint32_t mode() const { return mode_; }
  uint32_t flags() const { return flags_; }  // F_GETFL at the time it was handed over.
  WaitQueue* queue() { return polled_ ? &queue_ : nullptr; }
  bool is_regular() const { return S_ISREG(mode_) || S_ISBLK(mode_); }
  bool is_socket() const { return S_ISSOCK(mode_); }

  // The host's file has no RWF_NOWAIT: learned from its first answer.
  std::atomic<bool> lacks_nowait{false};

 private:
  const base::Fd fd_;
  const uint32_t mode_;
  const uint32_t flags_;
  HostPoller& poller_;
  WaitQueue queue_;
  bool polled_ = false;
};

class HostInode : public SyntheticInode {
 public:
  HostInode(HostFileSystem& file_system, std::shared_ptr<HostDescriptor> host,
            const HostFileOwner& owner)
      : SyntheticInode(file_system, host->mode() & S_IFMT), host_(std::move(host)), owner_(owner) {}

  base::Result<Attributes> GetAttributes() override;
  bool HandlesOwnOpen() const override { return true; }
  base::Result<std::shared_ptr<File>> Open(Task& task, const Path& path, uint32_t flags) override;

 private:
  const std::shared_ptr<HostDescriptor> host_;
  const HostFileOwner owner_;
};

class HostFile : public File {
 public:
  HostFile(Path path, uint32_t flags, CredentialsRef credentials, std::shared_ptr<Inode> inode,
           std::shared_ptr<HostDescriptor> host)
      : File(std::move(path), flags, std::move(credentials)),
        inode_(std::move(inode)),
        host_(std::move(host)) {}

  std::shared_ptr<Inode> inode() const override { return inode_; }
  bool seekable() const override { return host_->is_regular(); }
  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;
  base::Result<size_t> Write(Task& task, IoBuffer& from, uint64_t* offset) override;
  base::Result<uint64_t> Seek(Task& task, uint64_t position, int64_t offset, int whence) override;
  void FetchPosition() override;
  void PublishPosition() override;
  base::Result<uint64_t> Ioctl(Task& task, uint32_t command, uint64_t argument) override;
  base::Result<void> Sync(bool data_only) override;
  base::Result<void> Truncate(uint64_t size) override;
  PollMask Poll(PollMask interest) override;
  WaitQueue* wait_queue() override { return host_->queue(); }
  base::Result<Attributes> GetAttributes() override { return inode_->GetAttributes(); }
  std::string DisplayName() const override;

 private:
  base::Result<size_t> TransferOnce(std::span<const iovec> parts, bool write, off_t position);
  base::Result<size_t> PollAndTransfer(std::span<const iovec> parts, bool write);
  // True if `offset` is this description's own position, which the host keeps.
  bool IsSharedPosition(const uint64_t* offset) { return offset == &position(); }

  const std::shared_ptr<Inode> inode_;
  const std::shared_ptr<HostDescriptor> host_;
};

base::Result<size_t> Count(ssize_t result) {
  if (result < 0) return base::Errno(errno == EWOULDBLOCK ? EAGAIN : errno);
  return static_cast<size_t>(result);
}

}  // namespace

base::Result<Attributes> HostInode::GetAttributes() {
  struct stat host = {};
  if (fstat(host_->fd(), &host) != 0) return base::LastErrno();
  Attributes attributes = TRY(SyntheticInode::GetAttributes());
  attributes.mode = host.st_mode;
  attributes.uid = owner_.uid;
  attributes.gid = owner_.gid;
  attributes.rdev = host.st_rdev;
  attributes.size = static_cast<uint64_t>(host.st_size);
  attributes.block_size = static_cast<uint32_t>(host.st_blksize);
  attributes.blocks = static_cast<uint64_t>(host.st_blocks);
  attributes.atime = TimestampOf(host.st_atim);
  attributes.mtime = TimestampOf(host.st_mtim);
  attributes.ctime = TimestampOf(host.st_ctim);
  return attributes;
}

// /proc/self/fd/N, /dev/stdout. The new description may do no more than the host's one does.
base::Result<std::shared_ptr<File>> HostInode::Open(Task& task, const Path& path, uint32_t flags) {
  if (host_->is_socket()) return base::Errno(ENXIO);
  const uint32_t have = host_->flags() & O_ACCMODE;
  const uint32_t want = flags & O_ACCMODE;
  if (have != O_RDWR && want != have) return base::Errno(EACCES);
  return std::shared_ptr<File>(
      std::make_shared<HostFile>(path, flags, task.credentials(), shared_from_this(), host_));
}

// One host call that does not sleep, or EOPNOTSUPP. `position` -1: the host's own.
base::Result<size_t> HostFile::TransferOnce(std::span<const iovec> parts, bool write,
                                            off_t position) {
  const int count = static_cast<int>(parts.size());
  if (host_->is_socket()) {
    msghdr message = {};
    message.msg_iov = const_cast<iovec*>(parts.data());
    message.msg_iovlen = parts.size();
    return Count(write ? sendmsg(host_->fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL)
                       : recvmsg(host_->fd(), &message, MSG_DONTWAIT));
  }
  int flags = host_->is_regular() ? 0 : RWF_NOWAIT;
  if (write && (File::flags() & O_APPEND) != 0 && host_->is_regular()) flags |= RWF_APPEND;
  return Count(write ? pwritev2(host_->fd(), parts.data(), count, position, flags)
                     : preadv2(host_->fd(), parts.data(), count, position, flags));
}

base::Result<size_t> HostFile::PollAndTransfer(std::span<const iovec> parts, bool write) {
  const PollMask interest = write ? kPollWritable : kPollReadable;
  if (HostPoller::Ready(host_->fd(), interest) == 0) return base::Errno(EAGAIN);
  // One part only, and a bounded one: what polls writable takes this much without sleeping.
  iovec part = parts.front();
  if (write)
    part.iov_len =
        std::min<size_t>(part.iov_len, S_ISFIFO(host_->mode()) ? PIPE_BUF : kTerminalWriteBytes);
  return Count(write ? writev(host_->fd(), &part, 1) : readv(host_->fd(), &part, 1));
}

base::Result<size_t> HostFile::Read(Task& task, IoBuffer& to, uint64_t* offset) {
  (void)task;
  if (to.remaining() == 0) return size_t{0};
  const bool positioned = offset != nullptr && seekable() && !IsSharedPosition(offset);
  const off_t position = positioned ? static_cast<off_t>(*offset) : -1;
  auto operation = [&](std::span<const iovec> parts) -> base::Result<size_t> {
    if (!host_->lacks_nowait.load(std::memory_order_relaxed)) {
      const auto result = TransferOnce(parts, false, position);
      if (result.ok() || result.error() != EOPNOTSUPP) return result;
      host_->lacks_nowait.store(true, std::memory_order_relaxed);
    }
    return PollAndTransfer(parts, false);
  };
  const size_t count =
      TRY(to.WithHostMemory(std::min<uint64_t>(to.remaining(), kHostIoBytesMax), true, operation));
  if (offset != nullptr) *offset += count;
  return count;
}

base::Result<size_t> HostFile::Write(Task& task, IoBuffer& from, uint64_t* offset) {
  const bool positioned = offset != nullptr && seekable() && !IsSharedPosition(offset);
  const off_t position = positioned ? static_cast<off_t>(*offset) : -1;
  auto operation = [&](std::span<const iovec> parts) -> base::Result<size_t> {
    if (!host_->lacks_nowait.load(std::memory_order_relaxed)) {
      const auto result = TransferOnce(parts, true, position);
      if (result.ok() || result.error() != EOPNOTSUPP) return result;
      host_->lacks_nowait.store(true, std::memory_order_relaxed);
    }
    return PollAndTransfer(parts, true);
  };
  while (from.remaining() > 0) {
    const auto moved = from.WithHostMemory(std::min<uint64_t>(from.remaining(), kHostIoBytesMax),
                                           false, operation);
    if (!moved.ok()) {
      if (moved.error() == EPIPE) {
        const auto credentials = task.credentials();
        // A full signal queue cannot lose it: standard signals need no queue entry.
        (void)task.SendSignal(SignalInfo::FromUser(SIGPIPE, task.tid(), credentials->uid));
      }
      // EAGAIN with a part taken: the caller waits for the rest or settles for from.done().
      if (moved.error() == EAGAIN || from.done() == 0) return moved.error();
      break;
    }
    if (offset != nullptr) *offset += moved.value();
    if (moved.value() == 0) break;
    if (task.IsInterrupted()) return base::kRestartSys;
  }
  return static_cast<size_t>(from.done());
}

base::Result<uint64_t> HostFile::Seek(Task&, uint64_t, int64_t offset, int whence) {
  const off_t position = lseek(host_->fd(), offset, whence);
  if (position < 0) return base::LastErrno();
  return static_cast<uint64_t>(position);
}

void HostFile::FetchPosition() {
  const off_t now = lseek(host_->fd(), 0, SEEK_CUR);
  if (now >= 0) position() = static_cast<uint64_t>(now);
}

void HostFile::PublishPosition() {
  // It is seekable, and the position came from there: this does not fail.
  (void)lseek(host_->fd(), static_cast<off_t>(position()), SEEK_SET);
}

base::Result<uint64_t> HostFile::Ioctl(Task& task, uint32_t command, uint64_t argument) {
  const base::UserAddr address(argument);
  switch (command) {
    case FIONREAD: {
      int32_t count = 0;
      if (ioctl(host_->fd(), FIONREAD, &count) != 0) return base::LastErrno();
      TRY(task.CopyOut(base::UserOut<int32_t>(address), count));
      return uint64_t{0};
    }
    case TIOCGWINSZ: {
      struct winsize size = {};
      if (ioctl(host_->fd(), TIOCGWINSZ, &size) != 0) return base::LastErrno();
      TRY(task.CopyOut(base::UserOut<struct winsize>(address), size));
      return uint64_t{0};
    }
    case TCGETS: {
      // The kernel's struct termios; libc's is longer.
      std::array<uint8_t, 36> settings = {};
      std::array<uint8_t, 64> host_settings = {};
      if (ioctl(host_->fd(), TCGETS, host_settings.data()) != 0) return base::LastErrno();
      std::copy_n(host_settings.begin(), settings.size(), settings.begin());
      TRY(task.CopyOut(base::UserOut<std::array<uint8_t, 36>>(address), settings));
      return uint64_t{0};
    }
    default:
      return base::Errno(ENOTTY);
  }
}

base::Result<void> HostFile::Sync(bool data_only) {
  if ((data_only ? fdatasync(host_->fd()) : fsync(host_->fd())) != 0) return base::LastErrno();
  return {};
}

base::Result<void> HostFile::Truncate(uint64_t size) {
  if (ftruncate(host_->fd(), static_cast<off_t>(size)) != 0) return base::LastErrno();
  return {};
}

PollMask HostFile::Poll(PollMask interest) {
  if (host_->queue() == nullptr) return interest & (kPollReadable | kPollWritable);
  return HostPoller::Ready(host_->fd(), interest);
}

std::string HostFile::DisplayName() const {
  const char* kind = host_->is_socket() ? "socket" : S_ISFIFO(host_->mode()) ? "pipe" : "host";
  const auto attributes = inode_->GetAttributes();
  return std::string(kind) + ":[" + std::to_string(attributes.ok() ? attributes.value().inode : 0) +
         "]";
}

std::shared_ptr<HostFileSystem> NewHostFileSystem(Kernel& kernel) {
  return std::make_shared<HostFileSystem>(kernel.clock());
}

base::Result<FileRef> NewHostFile(Kernel& kernel,
                                  const std::shared_ptr<HostFileSystem>& file_system,
                                  base::Fd host_fd, const HostFileOwner& owner) {
  struct stat attributes = {};
  if (fstat(host_fd.get(), &attributes) != 0) return base::LastErrno();
  const int flags = fcntl(host_fd.get(), F_GETFL);
  if (flags < 0) return base::LastErrno();
  // The host's O_NONBLOCK is not the guest's affair: it would see EAGAIN where it expects to wait.
  const auto kept = static_cast<uint32_t>(flags) & (O_ACCMODE | O_APPEND);
  auto host =
      std::make_shared<HostDescriptor>(kernel, std::move(host_fd), attributes.st_mode, kept);
  auto inode = std::make_shared<HostInode>(*file_system, host, owner);
  Path path = kernel.vfs().AnonymousPath(file_system, inode,
                                         "host:[" + std::to_string(inode->number()) + "]");
  return FileRef(std::make_shared<HostFile>(std::move(path), kept, RootCredentials(),
                                            std::move(inode), std::move(host)));
}

}  // namespace sentry
