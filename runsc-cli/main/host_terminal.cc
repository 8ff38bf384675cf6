// A container's terminal on the host's side (--console-socket): the master end belongs to who runs
// the container (Docker's shim, conmon), the other one to the sandbox, which connects it to a
// terminal of its own.

#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "platform/base/fd_message.h"
#include "runsc-cli/main/supervisor.h"

namespace runsc {
namespace {

absl::Status HostError(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", strerror(errno)));
}

absl::Status SendMaster(int socket, int master) {
  // The name is what others send; receivers want the descriptor.
  char name[] = "/dev/ptmx";
  iovec part{name, sizeof(name) - 1};
  base::FdRoom<1> room;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  base::PutFds(message, room, {&master, 1});
  if (sendmsg(socket, &message, MSG_NOSIGNAL) < 0) return HostError("send the console");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<base::Fd> ConnectUnix(int directory, const std::string& path, int type) {
  base::Fd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (!fd) return HostError("socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // A path may be longer than what fits; its directory's descriptor is short.
  base::Fd parent;
  std::string short_path = path;
  if (directory < 0 && path.size() >= sizeof(address.sun_path)) {
    const size_t slash = path.rfind('/');
    parent = base::Fd(open(path.substr(0, slash).c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    directory = parent.get();
    short_path = path.substr(slash + 1);
  }
  if (directory >= 0) short_path = absl::StrCat("/proc/self/fd/", directory, "/", short_path);
  if (short_path.size() >= sizeof(address.sun_path)) {
    errno = ENAMETOOLONG;
    return HostError(path);
  }
  memcpy(address.sun_path, short_path.data(), short_path.size());
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return HostError(absl::StrCat("connect ", path));
  }
  return fd;
}

absl::Status OpenHostTerminal(const std::string& console_socket, winsize size) {
  const base::Fd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master) return HostError("open /dev/ptmx");
  if (unlockpt(master.get()) != 0) return HostError("unlock the console");
  const int opened = ioctl(master.get(), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (opened < 0) return HostError("open the console");
  const base::Fd slave(opened);
  // Keys are the business of the terminal inside.
  termios modes{};
  if (tcgetattr(slave.get(), &modes) != 0) return HostError("the console's modes");
  cfmakeraw(&modes);
  tcsetattr(slave.get(), TCSANOW, &modes);
  if (size.ws_row != 0 || size.ws_col != 0) ioctl(master.get(), TIOCSWINSZ, &size);
  const auto socket = ConnectUnix(-1, console_socket, SOCK_STREAM);
  if (!socket.ok()) return socket.status();
  if (absl::Status sent = SendMaster(socket->get(), master.get()); !sent.ok()) return sent;
  // Its changes of size come as SIGWINCH.
  if (ioctl(slave.get(), TIOCSCTTY, 0) != 0) return HostError("make the console ours");
  for (int fd = 0; fd < 3; ++fd) {
    if (dup2(slave.get(), fd) < 0) return HostError("the console's descriptors");
  }
  return absl::OkStatus();
}

}  // namespace runsc
