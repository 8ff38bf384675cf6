#include "sentry/tty/line_discipline.h"

#include <string>
#include <string_view>
#include <vector>

#include "catch2/catch.hpp"

namespace {

using sentry::DefaultTermios;
using sentry::LineDiscipline;
using sentry::Termios2;

// A terminal with short names for what tests do.
struct Line {
  LineDiscipline line;
  LineDiscipline::Events events;

  size_t Type(std::string_view text) {
    events = {};
    return line.Type({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, events);
  }
  std::string Read(size_t size = 4096) {
    events = {};
    std::string out(size, '\0');
    out.resize(line.Read({reinterpret_cast<uint8_t*>(out.data()), out.size()}, events));
    return out;
  }
  size_t Write(std::string_view text) {
    return line.Write({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, events);
  }
  std::string Output() {
    std::string out(LineDiscipline::kOutputBytesMax, '\0');
    out.resize(line.TakeOutput({reinterpret_cast<uint8_t*>(out.data()), out.size()}, events));
    return out;
  }
  template <typename Change>
  void Set(Change&& change) {
    Termios2 settings = line.settings();
    change(settings);
    line.SetSettings(settings, events);
  }
};

TEST_CASE("a line becomes readable with its newline and is echoed", "[tty]") {
  Line tty;
  tty.Type("ab");
  CHECK(tty.line.InputAvailable(true) == 0);
  tty.Type("c\r");
  CHECK(tty.events.input_ready);
  CHECK(tty.Read() == "abc\n");
  CHECK(tty.Output() == "abc\r\n");
}

TEST_CASE("a read takes one line at a time, and parts of it", "[tty]") {
  Line tty;
  tty.Type("one\ntwo\n");
  CHECK(tty.Read(2) == "on");
  CHECK(tty.Read() == "e\n");
  CHECK(tty.Read() == "two\n");
}

TEST_CASE("erase, word erase and kill edit the line and the screen", "[tty]") {
  Line tty;
  tty.Type("abc\x7f\n");
  CHECK(tty.Read() == "ab\n");
  CHECK(tty.Output() == "abc\b \b\r\n");
  tty.Type("foo bar-baz\x17\n");
  CHECK(tty.Read() == "foo bar-\n");
  (void)tty.Output();
  tty.Type("foo\x15yes\n");
  CHECK(tty.Read() == "yes\n");
  CHECK(tty.Output() == "foo\b \b\b \b\b \byes\r\n");
}

TEST_CASE("erase takes a whole character of UTF-8 with IUTF8", "[tty]") {
  Line tty;
  tty.Set([](Termios2& settings) { settings.c_iflag |= IUTF8; });
  tty.Type("a\xc3\xa4\x7f\n");
  CHECK(tty.Read() == "a\n");
  CHECK(tty.Output() == "a\xc3\xa4\b \b\r\n");
}

TEST_CASE("an erased tab moves the cursor back to where it was", "[tty]") {
  Line tty;
  tty.Write("$ ");
  tty.Type("ab\t\x7f");
  CHECK(tty.Output() == "$ ab\t\b\b\b\b");
}

TEST_CASE("end of file ends a line without a byte", "[tty]") {
  Line tty;
  tty.Type("abc\x04");
  CHECK(tty.Read() == "abc");
  tty.Type("\x04");
  REQUIRE(tty.line.InputAvailable(true) > 0);
  CHECK(tty.Read().empty());
  // A read of exactly what was typed swallows the mark.
  tty.Type("xy\x04");
  CHECK(tty.Read(2) == "xy");
  CHECK(tty.line.InputAvailable(true) == 0);
}

TEST_CASE("control characters raise signals and drop what was typed", "[tty]") {
  Line tty;
  tty.Type("abc\x03");
  CHECK(tty.events.interrupt);
  CHECK(tty.Output() == "^C");  // The echo of what was flushed goes, too.
  CHECK(tty.line.InputQueued() == 0);
  tty.Type("\x1c");
  CHECK(tty.events.quit);
  tty.Type("\x1a");
  CHECK(tty.events.suspend);
  tty.Set([](Termios2& settings) { settings.c_lflag &= ~static_cast<tcflag_t>(ISIG); });
  tty.Type("\x03\n");
  CHECK_FALSE(tty.events.interrupt);
  CHECK(tty.Read() == "\x03\n");
}

TEST_CASE("literal next takes the meaning from a character", "[tty]") {
  Line tty;
  tty.Type("\x16\x03\x16\x7f\n");
  CHECK_FALSE(tty.events.interrupt);
  CHECK(tty.Read() == "\x03\x7f\n");
  CHECK(tty.Output() == "^\b^C^\b^?\r\n");
}

TEST_CASE("stop and start hold back the program's output", "[tty]") {
  Line tty;
  tty.Type("\x13");
  CHECK(tty.line.stopped());
  CHECK(tty.Write("x") == 0);
  tty.Type("\x11");
  CHECK(tty.events.output_room);
  CHECK(tty.Write("x") == 1);
}

TEST_CASE("output is translated by OPOST's flags", "[tty]") {
  Line tty;
  tty.Write("a\nb\tc");
  CHECK(tty.Output() == "a\r\nb\tc");
  tty.Set([](Termios2& settings) { settings.c_oflag |= XTABS; });
  tty.Write("\nb\tc");
  CHECK(tty.Output() == "\r\nb       c");
  tty.Set([](Termios2& settings) { settings.c_oflag = OPOST | OCRNL | OLCUC; });
  tty.Write("ab\r");
  CHECK(tty.Output() == "AB\n");
  tty.Set([](Termios2& settings) { settings.c_oflag = 0; });
  tty.Write("a\n");
  CHECK(tty.Output() == "a\n");
}

TEST_CASE("raw input passes bytes at once, by VMIN", "[tty]") {
  Line tty;
  tty.Set([](Termios2& settings) {
    settings.c_lflag = 0;
    settings.c_iflag = 0;
    settings.c_cc[VMIN] = 3;
  });
  tty.Type("ab");
  CHECK(tty.line.InputAvailable(true) == 0);
  CHECK(tty.line.InputAvailable(false) == 2);
  tty.Type("\r");
  CHECK(tty.line.InputAvailable(true) == 3);
  CHECK(tty.Read() == "ab\r");
  CHECK(tty.Output().empty());
}

TEST_CASE("a change of mode makes typed bytes readable", "[tty]") {
  Line tty;
  tty.Type("abc");
  tty.Set([](Termios2& settings) { settings.c_lflag &= ~static_cast<tcflag_t>(ICANON); });
  CHECK(tty.Read() == "abc");
  tty.Type("xy");
  tty.Set([](Termios2& settings) { settings.c_lflag |= ICANON; });
  CHECK(tty.Read() == "xy");
}

TEST_CASE("input is bounded: lines are cut, raw bytes are held back", "[tty][limits]") {
  Line tty;
  const std::string flood(2 * LineDiscipline::kInputBytesMax, 'x');
  CHECK(tty.Type(flood) == flood.size());
  tty.Type("\n");
  const std::string line = tty.Read(8192);
  CHECK(line.size() == LineDiscipline::kInputBytesMax);
  CHECK(line.back() == '\n');
  tty.Set([](Termios2& settings) { settings.c_lflag = 0; });
  CHECK(tty.Type(flood) == LineDiscipline::kInputBytesMax - 1);
  CHECK(tty.Type("y") == 0);
  (void)tty.Read(1);
  CHECK(tty.events.input_room);
  CHECK(tty.Type("y") == 1);
}

TEST_CASE("output is bounded, and room is kept for echo", "[tty][limits]") {
  Line tty;
  const std::string flood(2 * LineDiscipline::kOutputBytesMax, 'x');
  CHECK(tty.Write(flood) == LineDiscipline::kOutputBytesMax - LineDiscipline::kEchoReserve);
  CHECK_FALSE(tty.line.CanWrite());
  tty.Type("e");
  CHECK(tty.line.OutputQueued() ==
        LineDiscipline::kOutputBytesMax - LineDiscipline::kEchoReserve + 1);
  (void)tty.Output();
  CHECK(tty.line.CanWrite());
}

}  // namespace
