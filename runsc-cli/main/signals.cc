#include "runsc-cli/main/signals.h"

#include <signal.h>
#include <sys/signalfd.h>

namespace runsc {

base::Fd TakeSignals() {
  sigset_t set;
  sigfillset(&set);
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS}) {
    sigdelset(&set, signal);
  }
  sigprocmask(SIG_SETMASK, &set, nullptr);
  return base::Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

}  // namespace runsc
