// ioctl_tty(2) for both ends of a pty.

#include <fcntl.h>
#include <signal.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "sentry/kernel/job_control.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/tty/terminal.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;

constexpr int kCapSysAdmin = 21;

template <typename T>
Result<uint64_t> Give(Task& task, uint64_t address, const T& value) {
  TRY(task.CopyOut(UserOut<T>(UserAddr(address)), value));
  return uint64_t{0};
}

template <typename T>
Result<T> Take(Task& task, uint64_t address) {
  return task.CopyIn(UserIn<T>(UserAddr(address)));
}

Termios ShortForm(const Termios2& settings) {
  Termios result = {};
  result.c_iflag = settings.c_iflag;
  result.c_oflag = settings.c_oflag;
  result.c_cflag = settings.c_cflag;
  result.c_lflag = settings.c_lflag;
  result.c_line = settings.c_line;
  std::copy(std::begin(settings.c_cc), std::end(settings.c_cc), std::begin(result.c_cc));
  return result;
}

Termios2 LongForm(const Termios& settings, const Termios2& old) {
  Termios2 result = old;
  result.c_iflag = settings.c_iflag;
  result.c_oflag = settings.c_oflag;
  result.c_cflag = settings.c_cflag;
  result.c_lflag = settings.c_lflag;
  result.c_line = settings.c_line;
  std::copy(std::begin(settings.c_cc), std::end(settings.c_cc), std::begin(result.c_cc));
  return result;
}

LegacyTermio LegacyForm(const Termios2& settings) {
  LegacyTermio result;
  result.input = static_cast<uint16_t>(settings.c_iflag);
  result.output = static_cast<uint16_t>(settings.c_oflag);
  result.control = static_cast<uint16_t>(settings.c_cflag);
  result.local = static_cast<uint16_t>(settings.c_lflag);
  result.line = settings.c_line;
  std::copy_n(settings.c_cc, std::size(result.characters), result.characters);
  return result;
}

Termios2 FromLegacyForm(const LegacyTermio& settings, const Termios2& old) {
  Termios2 result = old;
  result.c_iflag = (old.c_iflag & 0xffff0000) | settings.input;
  result.c_oflag = (old.c_oflag & 0xffff0000) | settings.output;
  result.c_cflag = (old.c_cflag & 0xffff0000) | settings.control;
  result.c_lflag = (old.c_lflag & 0xffff0000) | settings.local;
  result.c_line = settings.line;
  std::copy_n(settings.characters, std::size(settings.characters), result.c_cc);
  return result;
}

void KeepLocked(const Termios& locks, const Termios2& old, Termios2& wanted) {
  const auto keep = [](tcflag_t lock, tcflag_t before, tcflag_t& after) {
    after = (after & ~lock) | (before & lock);
  };
  keep(locks.c_iflag, old.c_iflag, wanted.c_iflag);
  keep(locks.c_oflag, old.c_oflag, wanted.c_oflag);
  keep(locks.c_cflag, old.c_cflag, wanted.c_cflag);
  keep(locks.c_lflag, old.c_lflag, wanted.c_lflag);
  if (locks.c_line != 0) wanted.c_line = old.c_line;
  for (size_t i = 0; i < std::size(wanted.c_cc); ++i) {
    if (locks.c_cc[i] != 0) wanted.c_cc[i] = old.c_cc[i];
  }
}

}  // namespace

Result<void> Terminal::ChangeSettings(Task& task, const Termios2& settings, bool flush_input) {
  TRY(JobControl::CheckAccess(task, *this, SIGTTOU));
  Events events;
  {
    const absl::MutexLock lock(&mu_);
    // As Linux's pty: 8 bits, no parity, always receiving.
    Termios2 wanted = settings;
    wanted.c_cflag = (wanted.c_cflag & ~(CSIZE | PARENB)) | CS8 | CREAD;
    KeepLocked(locks_, line_.settings(), wanted);
    if (flush_input) line_.FlushInput(events);
    events.packet = 0;
    line_.SetSettings(wanted, events);
    NoteLocked(events);
  }
  Apply(events);
  return {};
}

Result<void> Terminal::Flush(int32_t which) {
  Events events;
  {
    const absl::MutexLock lock(&mu_);
    if (which == TCIFLUSH || which == TCIOFLUSH) line_.FlushInput(events);
    if (which == TCOFLUSH || which == TCIOFLUSH) line_.FlushOutput(events);
    if (which != TCIFLUSH && which != TCOFLUSH && which != TCIOFLUSH) return Errno(EINVAL);
    NoteLocked(events);
  }
  Apply(events);
  return {};
}

Result<void> Terminal::FlowControl(int32_t action) {
  Events events;
  {
    const absl::MutexLock lock(&mu_);
    switch (action) {
      case TCOOFF:
        line_.Stop(events);
        break;
      case TCOON:
        line_.Start(events);
        break;
      case TCIOFF:
        line_.SendRaw(line_.settings().c_cc[VSTOP], events);
        break;
      case TCION:
        line_.SendRaw(line_.settings().c_cc[VSTART], events);
        break;
      default:
        return Errno(EINVAL);
    }
    NoteLocked(events);
  }
  Apply(events);
  return {};
}

Result<uint64_t> Terminal::SettingsIoctl(Task& task, uint32_t command, uint64_t argument) {
  Termios2 now;
  {
    const absl::MutexLock lock(&mu_);
    now = line_.settings();
  }
  switch (command) {
    case TCGETS:
      return Give<Termios>(task, argument, ShortForm(now));
    case TCGETS2:
      return Give<Termios2>(task, argument, now);
    // "Drained" is when the master has room for it: output reaches it at once, so W and plain are
    // one.
    case TCSETS:
    case TCSETSW:
    case TCSETSF:
      TRY(ChangeSettings(task, LongForm(TRY(Take<Termios>(task, argument)), now),
                         command == TCSETSF));
      return uint64_t{0};
    case TCSETS2:
    case TCSETSW2:
    case TCSETSF2:
      TRY(ChangeSettings(task, TRY(Take<Termios2>(task, argument)), command == TCSETSF2));
      return uint64_t{0};
    case TIOCGSOFTCAR:
      return Give<int32_t>(task, argument, (now.c_cflag & CLOCAL) != 0 ? 1 : 0);
    default:
      return RareSettingsIoctl(task, command, argument, now);
  }
}

Result<uint64_t> Terminal::RareSettingsIoctl(Task& task, uint32_t command, uint64_t argument,
                                             const Termios2& now) {
  switch (command) {
    case TCGETA:
      return Give<LegacyTermio>(task, argument, LegacyForm(now));
    case TCSETA:
    case TCSETAW:
    case TCSETAF:
      TRY(ChangeSettings(task, FromLegacyForm(TRY(Take<LegacyTermio>(task, argument)), now),
                         command == TCSETAF));
      return uint64_t{0};
    case TIOCSSOFTCAR: {
      Termios2 wanted = now;
      wanted.c_cflag = (now.c_cflag & ~static_cast<tcflag_t>(CLOCAL)) |
                       (TRY(Take<int32_t>(task, argument)) != 0 ? CLOCAL : 0);
      TRY(ChangeSettings(task, wanted, false));
      return uint64_t{0};
    }
    case TIOCGLCKTRMIOS: {
      Termios locks = {};
      {
        const absl::MutexLock lock(&mu_);
        locks = locks_;
      }
      return Give<Termios>(task, argument, locks);
    }
    case TIOCSLCKTRMIOS: {
      if (!task.credentials()->HasCapability(kCapSysAdmin)) return Errno(EPERM);
      const Termios wanted = TRY(Take<Termios>(task, argument));
      const absl::MutexLock lock(&mu_);
      locks_ = wanted;
      return uint64_t{0};
    }
    default:
      return Errno(ENOTTY);
  }
}

Result<uint64_t> Terminal::CommonIoctl(Task& task, uint32_t command, uint64_t argument) {
  switch (command) {
    case TIOCGWINSZ: {
      WindowSize size;
      {
        const absl::MutexLock lock(&mu_);
        size = size_;
      }
      return Give<WindowSize>(task, argument, size);
    }
    case TIOCSWINSZ:
      SetSize(TRY(Take<WindowSize>(task, argument)));
      return uint64_t{0};
    case TIOCGETD:
      return Give<int32_t>(task, argument, 0);  // N_TTY
    case TIOCSETD:
      if (TRY(Take<int32_t>(task, argument)) != 0) return Errno(EINVAL);
      return uint64_t{0};
    case TIOCEXCL:
    case TIOCNXCL: {
      const absl::MutexLock lock(&mu_);
      exclusive_ = command == TIOCEXCL;
      return uint64_t{0};
    }
    case TIOCGEXCL: {
      int32_t exclusive = 0;
      {
        const absl::MutexLock lock(&mu_);
        exclusive = exclusive_ ? 1 : 0;
      }
      return Give<int32_t>(task, argument, exclusive);
    }
    case TIOCSTI:
      // As Linux since 6.2 with dev.tty.legacy_tiocsti=0.
      return Errno(EIO);
    case TIOCGDEV: {
      const uint64_t number = device();
      return Give<uint32_t>(task, argument,
                            static_cast<uint32_t>(minor(number) | (major(number) << 8)));
    }
    case TIOCCONS:
      return Errno(EPERM);
    default:
      return SettingsIoctl(task, command, argument);
  }
}

Result<uint64_t> Terminal::JobIoctl(Task& task, uint32_t command, uint64_t argument,
                                    bool may_read) {
  switch (command) {
    case TIOCSCTTY:
      if (!may_read && !task.credentials()->HasCapability(kCapSysAdmin)) return Errno(EPERM);
      TRY(JobControl::SetTerminal(task, shared_from_this(), argument == 1));
      return uint64_t{0};
    case TIOCNOTTY:
      TRY(JobControl::ReleaseTerminal(task, *this));
      return uint64_t{0};
    case TIOCGPGRP:
      return Give<int32_t>(task, argument, TRY(JobControl::Foreground(task, *this)));
    case TIOCSPGRP:
      TRY(JobControl::SetForeground(task, *this, TRY(Take<int32_t>(task, argument))));
      return uint64_t{0};
    case TIOCGSID:
      return Give<int32_t>(task, argument, TRY(JobControl::TerminalSession(task, *this)));
    default:
      return Errno(ENOTTY);
  }
}

Result<uint64_t> Terminal::SlaveIoctl(Task& task, uint32_t command, uint64_t argument,
                                      bool may_read) {
  switch (command) {
    case TIOCSCTTY:
    case TIOCNOTTY:
    case TIOCGPGRP:
    case TIOCSPGRP:
    case TIOCGSID:
      return JobIoctl(task, command, argument, may_read);
    case TCFLSH:
      TRY(JobControl::CheckAccess(task, *this, SIGTTOU));
      TRY(Flush(static_cast<int32_t>(argument)));
      return uint64_t{0};
    case TCXONC:
      TRY(JobControl::CheckAccess(task, *this, SIGTTOU));
      TRY(FlowControl(static_cast<int32_t>(argument)));
      return uint64_t{0};
    case TCSBRK:
    case TCSBRKP:
    case TIOCSBRK:
    case TIOCCBRK:
      // A pty has no line to break; output is drained as soon as it is written.
      TRY(JobControl::CheckAccess(task, *this, SIGTTOU));
      return uint64_t{0};
    case TIOCVHANGUP:
      if (!task.credentials()->HasCapability(kCapSysAdmin)) return Errno(EPERM);
      JobControl::HangUp(kernel_, *this);
      HangUpSlaves();
      return uint64_t{0};
    case FIONREAD: {
      int32_t count = 0;
      {
        const absl::MutexLock lock(&mu_);
        count = static_cast<int32_t>(line_.InputQueued());
      }
      return Give<int32_t>(task, argument, count);
    }
    case TIOCOUTQ: {
      int32_t count = 0;
      {
        const absl::MutexLock lock(&mu_);
        count = static_cast<int32_t>(line_.OutputQueued());
      }
      return Give<int32_t>(task, argument, count);
    }
    default:
      return CommonIoctl(task, command, argument);
  }
}

Result<uint64_t> Terminal::MasterIoctl(Task& task, uint32_t command, uint64_t argument) {
  switch (command) {
    case TIOCGPTN:
      return Give<uint32_t>(task, argument, index_);
    case TIOCSPTLCK: {
      const bool lock_it = TRY(Take<int32_t>(task, argument)) != 0;
      const absl::MutexLock lock(&mu_);
      locked_ = lock_it;
      return uint64_t{0};
    }
    case TIOCGPTLCK: {
      int32_t locked = 0;
      {
        const absl::MutexLock lock(&mu_);
        locked = locked_ ? 1 : 0;
      }
      return Give<int32_t>(task, argument, locked);
    }
    case TIOCPKT: {
      const bool on = TRY(Take<int32_t>(task, argument)) != 0;
      const absl::MutexLock lock(&mu_);
      if (on && !packet_mode_) packet_status_ = 0;
      packet_mode_ = on;
      if (!on) packet_status_ = 0;
      return uint64_t{0};
    }
    case TIOCGPKT: {
      int32_t on = 0;
      {
        const absl::MutexLock lock(&mu_);
        on = packet_mode_ ? 1 : 0;
      }
      return Give<int32_t>(task, argument, on);
    }
    case TIOCSIG: {
      const auto signal = static_cast<int32_t>(argument);
      if (signal != SIGINT && signal != SIGQUIT && signal != SIGTSTP) return Errno(EINVAL);
      JobControl::SignalForeground(kernel_, *this, signal);
      return uint64_t{0};
    }
    case TIOCGPTPEER: {
      const auto flags = static_cast<uint32_t>(argument);
      FileRef slave = TRY(OpenPeer(task, flags));
      return static_cast<uint64_t>(
          TRY(task.InstallFile(std::move(slave), (flags & O_CLOEXEC) != 0)));
    }
    case TCFLSH:
      // From this end "input" is what the slave wrote.
      TRY(Flush(argument == TCIFLUSH   ? TCOFLUSH
                : argument == TCOFLUSH ? TCIFLUSH
                                       : static_cast<int32_t>(argument)));
      return uint64_t{0};
    case FIONREAD: {
      int32_t count = 0;
      {
        const absl::MutexLock lock(&mu_);
        count = static_cast<int32_t>(line_.OutputQueued());
      }
      return Give<int32_t>(task, argument, count);
    }
    case TIOCOUTQ:
      return Give<int32_t>(task, argument, 0);
    case TIOCGPGRP:
    case TIOCGSID:
    case TIOCSPGRP:
      return JobIoctl(task, command, argument, false);
    default:
      return CommonIoctl(task, command, argument);
  }
}

}  // namespace sentry
