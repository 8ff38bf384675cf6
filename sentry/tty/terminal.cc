#include "sentry/tty/terminal.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/sysmacros.h>

#include <string>
#include <utility>

#include "sentry/kernel/job_control.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/tty/pty_files.h"

namespace sentry {

Terminal::Terminal(Kernel& kernel, uint32_t index, std::function<void()> on_master_closed)
    : kernel_(kernel), index_(index), on_master_closed_(std::move(on_master_closed)) {}

Terminal::~Terminal() = default;

uint64_t Terminal::device() const { return makedev(kPtsMajor, index_); }

FileRef Terminal::OpenMaster(Path path, uint32_t flags, CredentialsRef credentials) {
  return std::make_shared<PtyMasterFile>(std::move(path), flags, std::move(credentials),
                                         shared_from_this());
}

base::Result<FileRef> Terminal::OpenSlave(Task* task, Path path, uint32_t flags,
                                          CredentialsRef credentials) {
  uint64_t generation = 0;
  {
    const absl::MutexLock lock(&mu_);
    if (master_closed_ || locked_) return base::Errno(EIO);
    if (exclusive_ && !credentials->HasCapability(21 /* CAP_SYS_ADMIN */))
      return base::Errno(EBUSY);
    ++slaves_;
    slave_was_opened_ = true;
    generation = generation_;
  }
  auto file = std::make_shared<PtySlaveFile>(std::move(path), flags, std::move(credentials),
                                             shared_from_this(), generation);
  master_queue_.Notify(kPollWritable);
  if (task != nullptr && (flags & O_NOCTTY) == 0 && file->readable()) {
    JobControl::MaybeSetTerminal(*task, shared_from_this());
  }
  return FileRef(std::move(file));
}

base::Result<FileRef> Terminal::OpenPeer(Task& task, uint32_t flags) {
  Path path = TRY(kernel_.vfs().WalkAsKernel("/dev/pts/" + std::to_string(index_)));
  return OpenSlave(&task, std::move(path), flags & ~static_cast<uint32_t>(O_CLOEXEC),
                   task.credentials());
}

void Terminal::NoteLocked(const Events& events) {
  if (events.input_ready) ++input_arrivals_;
  if (packet_mode_) packet_status_ = static_cast<uint8_t>(packet_status_ | events.packet);
}

void Terminal::Apply(const Events& events) {
  if (events.interrupt) JobControl::SignalForeground(kernel_, *this, SIGINT);
  if (events.quit) JobControl::SignalForeground(kernel_, *this, SIGQUIT);
  if (events.suspend) JobControl::SignalForeground(kernel_, *this, SIGTSTP);
  PollMask master = 0;
  PollMask slave = 0;
  if (events.input_ready) slave |= kPollReadable;
  if (events.output_room) slave |= kPollWritable;
  if (events.output_ready) master |= kPollReadable;
  if (events.input_room) master |= kPollWritable;
  if (events.packet != 0) master |= kPollReadable | POLLPRI;
  if (slave != 0) slave_queue_.Notify(slave);
  if (master != 0) master_queue_.Notify(master);
}

void Terminal::SlaveClosed() {
  {
    const absl::MutexLock lock(&mu_);
    if (--slaves_ > 0) return;
    exclusive_ = false;
  }
  master_queue_.Notify(kPollReadable | POLLHUP);
}

bool Terminal::IsHungUp(uint64_t generation) const {
  const absl::MutexLock lock(&mu_);
  return generation != generation_ || master_closed_;
}

void Terminal::HangUpSlaves() {
  {
    const absl::MutexLock lock(&mu_);
    ++generation_;
    // What programs wrote before stays for the master to read: a shell's last words.
    Events events;
    line_.FlushInput(events);
  }
  slave_queue_.Notify(kPollReadable | kPollWritable | POLLHUP | POLLERR);
}

size_t Terminal::TypeBytes(std::span<const uint8_t> bytes) {
  Events events;
  size_t taken = 0;
  {
    const absl::MutexLock lock(&mu_);
    taken = line_.Type(bytes, events);
    NoteLocked(events);
  }
  Apply(events);
  return taken;
}

size_t Terminal::TakeOutput(std::span<uint8_t> out) {
  Events events;
  size_t taken = 0;
  {
    const absl::MutexLock lock(&mu_);
    taken = line_.TakeOutput(out, events);
  }
  Apply(events);
  return taken;
}

void Terminal::SetSize(const WindowSize& size) {
  {
    const absl::MutexLock lock(&mu_);
    if (size == size_) return;
    size_ = size;
  }
  JobControl::SignalForeground(kernel_, *this, SIGWINCH);
}

void Terminal::CloseMaster() {
  {
    const absl::MutexLock lock(&mu_);
    if (master_closed_) return;
    master_closed_ = true;
  }
  JobControl::HangUp(kernel_, *this);
  HangUpSlaves();
  if (on_master_closed_) on_master_closed_();
}

void Terminal::Unlock() {
  const absl::MutexLock lock(&mu_);
  locked_ = false;
}

PollMask Terminal::PollMaster() {
  const absl::MutexLock lock(&mu_);
  PollMask mask = 0;
  if (line_.OutputQueued() > 0) mask |= kPollReadable;
  if (packet_status_ != 0) mask |= kPollReadable | POLLPRI;
  if (line_.InputQueued() + 1 < LineDiscipline::kInputBytesMax) mask |= kPollWritable;
  if (slave_was_opened_ && slaves_ == 0) mask |= POLLHUP;
  return mask;
}

}  // namespace sentry
