#pragma once

// A pseudo-terminal (pty(7)): two ends with a line discipline between them. Programs have the slave
// as their terminal; an emulator (ssh, script, tmux, or the sentry's own console pump) holds the
// master.
//
// One mutex guards all of it. Signals, job control and wake-ups take other locks, so they happen
// after it is released, from the Events that a step leaves behind.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/process_group.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/time/timer_service.h"
#include "sentry/tty/line_discipline.h"
#include "sentry/tty/termios.h"
#include "sentry/vfs/file.h"

namespace sentry {

class Kernel;
class Task;

// Major numbers of Documentation/admin-guide/devices.txt.
inline constexpr uint32_t kTtyMajor = 5;  // 0 tty, 1 console, 2 ptmx
inline constexpr uint32_t kPtsMajor = 136;

class Terminal final : public ControllingTerminal, public std::enable_shared_from_this<Terminal> {
 public:
  // `index` is N of /dev/pts/N. `on_master_closed` runs once, without locks.
  Terminal(Kernel& kernel, uint32_t index, std::function<void()> on_master_closed);
  ~Terminal() override;

  uint32_t index() const { return index_; }
  uint64_t device() const override;
  void OnDisassociated(bool leader_exited) override {
    if (leader_exited) HangUpSlaves();
  }

  // --- The two ends. Opening a slave fails with EIO while it is locked (TIOCSPTLCK) or its master
  // is gone, EBUSY by TIOCEXCL.
  FileRef OpenMaster(Path path, uint32_t flags, CredentialsRef credentials);
  base::Result<FileRef> OpenSlave(Task* task, Path path, uint32_t flags,
                                  CredentialsRef credentials);

  // --- For the owner of the master without a descriptor (console pump).
  // Bytes taken, 0 if the input is full.
  size_t TypeBytes(std::span<const uint8_t> bytes) ABSL_LOCKS_EXCLUDED(mu_);
  // 0 if there are none now.
  size_t TakeOutput(std::span<uint8_t> out) ABSL_LOCKS_EXCLUDED(mu_);
  void SetSize(const WindowSize& size) ABSL_LOCKS_EXCLUDED(mu_);
  void CloseMaster() ABSL_LOCKS_EXCLUDED(mu_);
  void Unlock() ABSL_LOCKS_EXCLUDED(mu_);
  WaitQueue& master_queue() { return master_queue_; }
  WaitQueue& slave_queue() { return slave_queue_; }
  PollMask PollMaster() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  friend class PtyMasterFile;
  friend class PtySlaveFile;
  using Events = LineDiscipline::Events;

  // Called with the lock released: signals, wake-ups.
  void Apply(const Events& events) ABSL_LOCKS_EXCLUDED(mu_);
  void NoteLocked(const Events& events) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SlaveOpened() ABSL_LOCKS_EXCLUDED(mu_);
  void SlaveClosed() ABSL_LOCKS_EXCLUDED(mu_);
  bool IsHungUp(uint64_t generation) const ABSL_LOCKS_EXCLUDED(mu_);
  void HangUpSlaves() ABSL_LOCKS_EXCLUDED(mu_);

  // --- ioctl_tty(2), terminal_ioctl.cc. Those of both ends / of one; ENOTTY for others.
  base::Result<uint64_t> CommonIoctl(Task& task, uint32_t command, uint64_t argument)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<uint64_t> SettingsIoctl(Task& task, uint32_t command, uint64_t argument)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<uint64_t> JobIoctl(Task& task, uint32_t command, uint64_t argument, bool may_read)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<uint64_t> SlaveIoctl(Task& task, uint32_t command, uint64_t argument, bool may_read)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<uint64_t> MasterIoctl(Task& task, uint32_t command, uint64_t argument)
      ABSL_LOCKS_EXCLUDED(mu_);
  // TIOCGPTPEER: the slave by its name below /dev/pts, however the caller's root looks.
  base::Result<FileRef> OpenPeer(Task& task, uint32_t flags) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> ChangeSettings(Task& task, const Termios2& settings, bool flush_input)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<uint64_t> RareSettingsIoctl(Task& task, uint32_t command, uint64_t argument,
                                           const Termios2& now) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Flush(int32_t which) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> FlowControl(int32_t action) ABSL_LOCKS_EXCLUDED(mu_);

  Kernel& kernel_;
  const uint32_t index_;
  const std::function<void()> on_master_closed_;
  WaitQueue master_queue_;
  WaitQueue slave_queue_;

  mutable absl::Mutex mu_;
  LineDiscipline line_ ABSL_GUARDED_BY(mu_);
  WindowSize size_ ABSL_GUARDED_BY(mu_);
  bool locked_ ABSL_GUARDED_BY(mu_) = true;      // TIOCSPTLCK: until unlockpt(3).
  bool exclusive_ ABSL_GUARDED_BY(mu_) = false;  // TIOCEXCL
  bool master_closed_ ABSL_GUARDED_BY(mu_) = false;
  bool slave_was_opened_ ABSL_GUARDED_BY(mu_) = false;
  uint32_t slaves_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t generation_ ABSL_GUARDED_BY(mu_) =
      0;  // Slaves opened in an earlier one have been hung up.
  bool packet_mode_ ABSL_GUARDED_BY(mu_) = false;
  uint8_t packet_status_ ABSL_GUARDED_BY(mu_) = 0;
  Termios locks_ ABSL_GUARDED_BY(mu_) = {};           // TIOCSLCKTRMIOS: bits that do not change.
  uint64_t input_arrivals_ ABSL_GUARDED_BY(mu_) = 0;  // For VTIME between bytes.
};

}  // namespace sentry
