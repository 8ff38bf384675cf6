#pragma once

// The kernel's terminal settings, as ioctl_tty(2) passes them (libc's struct termios is longer).

#include <asm/ioctls.h>
#include <asm/termbits.h>

#include <cstdint>
#include <type_traits>

namespace sentry {

using Termios = ::termios;    // TCGETS, TCSETS
using Termios2 = ::termios2;  // TCGETS2, TCSETS2
static_assert(sizeof(Termios) == 36 && sizeof(Termios2) == 44);
static_assert(std::has_unique_object_representations_v<Termios2>);

// struct termio of System V (TCGETA, TCSETA): the low halves of the flags.
struct LegacyTermio {
  uint16_t input = 0;
  uint16_t output = 0;
  uint16_t control = 0;
  uint16_t local = 0;
  uint8_t line = 0;
  uint8_t characters[8] = {};
  uint8_t pad = 0;
};
static_assert(sizeof(LegacyTermio) == 18);

struct WindowSize {
  uint16_t rows = 0;
  uint16_t columns = 0;
  uint16_t width_pixels = 0;
  uint16_t height_pixels = 0;
  friend bool operator==(const WindowSize&, const WindowSize&) = default;
};

// What a new terminal of Linux has (tty_std_termios), "cooked" and echoing.
constexpr Termios2 DefaultTermios() {
  Termios2 settings = {};
  settings.c_iflag = ICRNL | IXON;
  settings.c_oflag = OPOST | ONLCR;
  settings.c_cflag = B38400 | CS8 | CREAD;
  settings.c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN;
  constexpr auto kControl = [](char letter) { return static_cast<cc_t>(letter ^ 0x40); };
  settings.c_cc[VINTR] = kControl('C');
  settings.c_cc[VQUIT] = kControl('\\');
  settings.c_cc[VERASE] = 0x7f;
  settings.c_cc[VKILL] = kControl('U');
  settings.c_cc[VEOF] = kControl('D');
  settings.c_cc[VMIN] = 1;
  settings.c_cc[VSTART] = kControl('Q');
  settings.c_cc[VSTOP] = kControl('S');
  settings.c_cc[VSUSP] = kControl('Z');
  settings.c_cc[VREPRINT] = kControl('R');
  settings.c_cc[VDISCARD] = kControl('O');
  settings.c_cc[VWERASE] = kControl('W');
  settings.c_cc[VLNEXT] = kControl('V');
  settings.c_ispeed = 38400;
  settings.c_ospeed = 38400;
  return settings;
}

}  // namespace sentry
