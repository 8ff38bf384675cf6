#include "runsc-cli/cmd/help.h"

namespace cmd {

std::string VersionText() {
  return "runsc version " + std::string(kVersion) + "\nspec: " + std::string(kSpecVersion) + "\n";
}

std::string OverviewText() {
  return R"(runsc runs programs on a kernel of its own, in user space, inside a cage.

  runsc do [flags] -- CMD [ARGS]   run a command over the host's files, read-only below a throw-away overlay
  runsc help [do|filters|syscalls] explain a command, or print a table
  runsc --version

Flags that may stand before any command:
  --platform=auto|systrap|ptrace   how guest code is run
  --rewrite=on|off                 turn system calls that systrap sees often into jumps (default: on)
  --strace                         log each system call with decoded arguments
  --debug, --debug-log DIR         log more; write the logs of the three processes into DIR
  --timing                         say on standard error how long each step of the start took
  --network=none|sandbox           loopback only (default), or a TCP/IP of the sandbox's own
)";
}

std::string DoText() {
  return R"(runsc do [flags] -- CMD [ARGS]

Runs CMD in a new sandbox. It sees the host's root file system; what it writes goes to memory and is
gone afterwards. The exit status is CMD's (128+n if signal n ended it), 125 if runsc itself fails, 126 if
CMD cannot be executed, 127 if it is not found.

  --root DIR                 use DIR, for instance an unpacked image, in place of /
  --cwd DIR                  start in DIR (default: the current directory, or / with --root)
  -e NAME=VALUE              set a variable, over the caller's environment; may be repeated
  --uid N, --gid N           run as this user and group (default: the caller's)
  --volume HOST:GUEST[:ro]   show the host's file or directory HOST at GUEST; what the guest writes
                             there stays, unless :ro is given; may be repeated
  --network-namespace PATH   with --network=sandbox: take over the interfaces of that network namespace,
                             for instance /var/run/netns/NAME; addresses leave the host's stack
  --platform=auto|systrap|ptrace, --rewrite=on|off, --network=none|sandbox, --strace, --debug,
  --debug-log DIR, --timing
                             as in "runsc help"
)";
}

}  // namespace cmd
