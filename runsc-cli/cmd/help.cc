#include "runsc-cli/cmd/help.h"

namespace cmd {

std::string VersionText() {
  return "runsc version " + std::string(kVersion) + "\nspec: " + std::string(kSpecVersion) + "\n";
}

std::string OverviewText() {
  return R"(runsc runs programs on a kernel of its own, in user space, inside a cage.

  runsc do [flags] -- CMD [ARGS]   run a command over the host's files, read-only below a throw-away overlay
  runsc help [COMMAND|filters|syscalls]
                                   explain a command, or print a table
  runsc install, uninstall         put it among Docker's runtimes (/etc/docker/daemon.json), or take it out
  runsc completion bash            what a shell needs to complete commands
  runsc --version

As an OCI runtime, for Docker, containerd, podman and by hand:
  runsc spec [--bundle DIR]                        write an example of config.json
  runsc run | create [--bundle DIR] [--pid-file F] [--console-socket S] [--detach] ID
  runsc start | state | pause | resume | wait ID
  runsc exec [--detach] [--tty] [--user U:G] [--env K=V] [--cwd D] [--process F] ID CMD [ARGS]
  runsc kill [--all] ID [SIGNAL]
  runsc delete [--force] ID
  runsc list [--quiet] [--format table|json]
  runsc ps [--format table|json] ID [PS-FLAGS]
  runsc events [--stats] [--interval 5s] ID
  runsc update [--memory N] [--cpu-quota N] ... [--resources FILE|-] ID
  runsc features

Flags that may stand before any command, or after it:
  --root DIR                       where the state of containers is (not for "do"; default: /run/runsc)
  --log FILE, --log-format text|json
                                   where messages go, and how they look
  --platform=auto|systrap|ptrace   how guest code is run
  --rewrite=on|off                 turn system calls that systrap sees often into jumps (default: on)
  --file-access=exclusive|shared   whether others change a container's root while it runs (docker cp into it):
                                   with "shared" nothing of it is cached
  --strace                         log each system call with decoded arguments
  --debug, --debug-log DIR         log more; write the logs of the three processes into DIR
  --timing                         say on standard error how long each step of the start took ("do")
  --network=none|sandbox           loopback only (default), or a TCP/IP of the sandbox's own
Other flags of gVisor's runsc are accepted with a warning.
)";
}

std::string CommandText(const std::string& command) {
  const std::string all = OverviewText();
  std::string found;
  for (size_t at = 0; at < all.size();) {
    const size_t end = all.find('\n', at);
    const std::string line = all.substr(at, end - at);
    at = end + 1;
    const size_t brackets = line.find_first_of("[<");
    const std::string names = " " + line.substr(0, brackets) + " ";
    if (line.starts_with("  runsc ") && (names.find(" " + command + " ") != std::string::npos ||
                                         names.find(" " + command + ",") != std::string::npos)) {
      found += line.substr(2) + "\n";
    }
  }
  return found;
}

std::string CompletionText() {
  return R"(_runsc() {
  local current=${COMP_WORDS[COMP_CWORD]} words
  local commands="completion create delete do events exec features help install kill list pause ps resume run spec start state uninstall update wait"
  if [[ $current == -* ]]; then
    words="--bundle --console-socket --cwd --debug --debug-log --detach --env --force --format --help --interval --log --log-format --network --pid-file --platform --process --quiet --resources --rewrite --root --stats --strace --tty --user --version"
  elif [[ " $commands " == *" ${COMP_WORDS[COMP_CWORD-1]} "* ]]; then
    words=$(runsc list --quiet 2>/dev/null)
  else
    words=$commands
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _runsc runsc
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
