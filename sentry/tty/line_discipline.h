#pragma once

// What a terminal does to bytes between the keyboard and the program (termios(3), the kernel's
// N_TTY): line editing, echo, signals from control characters, flow control, newline translation.
//
// Bytes only: no lock, no task, no waiting. Its Terminal serialises the calls, sends the signals
// and wakes whoever waits. Input and output are bounded; a sender that fills them is told how much
// was taken. Left out: delays (NLDLY, CRDLY, ...), parity marking of real lines, EXTPROC.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>

#include "sentry/tty/termios.h"

namespace sentry {

class LineDiscipline {
 public:
  static constexpr size_t kInputBytesMax = 4096;  // As Linux: a line has at most 4095 bytes.
  static constexpr size_t kOutputBytesMax = 16384;
  // Kept free for echo when a program fills the output.
  static constexpr size_t kEchoReserve = 1024;

  // What a step brought about; the caller acts on it after its lock is released.
  struct Events {
    bool input_ready = false;   // Readers of the terminal should look.
    bool input_room = false;    // Whoever types should look.
    bool output_ready = false;  // Readers of the output should look.
    bool output_room = false;   // Writers to the terminal should look.
    bool interrupt = false;     // SIGINT, SIGQUIT, SIGTSTP to the foreground process group.
    bool quit = false;
    bool suspend = false;
    uint8_t packet = 0;  // TIOCPKT_*
  };

  const Termios2& settings() const { return settings_; }
  void SetSettings(const Termios2& settings, Events& events);

  // Bytes from the keyboard. Returns how many were taken; fewer than given when input is full.
  size_t Type(std::span<const uint8_t> bytes, Events& events);
  // What a read(2) can take now. `for_poll`: zero if poll(2) would not say POLLIN, by VMIN.
  size_t InputAvailable(bool for_poll) const;
  // Canonical: at most one line; an end-of-file character gives 0 bytes. Precondition: a line is
  // there if canonical.
  size_t Read(std::span<uint8_t> out, Events& events);
  // All bytes in the input, complete or not (FIONREAD differs by mode as in Linux).
  size_t InputQueued() const;

  // Bytes from the program. Returns how many were taken, 0 if stopped or full.
  size_t Write(std::span<const uint8_t> bytes, Events& events);
  bool CanWrite() const { return !stopped_ && output_.size() + kEchoReserve < kOutputBytesMax; }
  // For the reader of the output (the other side of a pty).
  size_t TakeOutput(std::span<uint8_t> out, Events& events);
  size_t OutputQueued() const { return output_.size(); }

  void FlushInput(Events& events);
  void FlushOutput(Events& events);
  void Stop(Events& events);
  void Start(Events& events);
  bool stopped() const { return stopped_; }
  // Puts a byte into the output untranslated (TCIOFF, TCION, IXOFF).
  void SendRaw(uint8_t byte, Events& events);

 private:
  // One byte of input with what it means for canonical reads.
  struct Cell {
    uint8_t byte = 0;
    bool ends_line = false;
    bool is_eof = false;  // Ends a line and is itself not delivered.
  };

  bool Input(uint32_t flag) const { return (settings_.c_iflag & flag) != 0; }
  bool Local(uint32_t flag) const { return (settings_.c_lflag & flag) != 0; }
  bool Output(uint32_t flag) const { return (settings_.c_oflag & flag) != 0; }
  // A control character of 0 is switched off.
  bool Is(size_t index, uint8_t byte) const {
    return settings_.c_cc[index] != 0 && settings_.c_cc[index] == byte;
  }
  bool InputFull() const;

  void TypeOne(uint8_t byte, Events& events);
  // True if the byte was a signal or flow-control character.
  bool TypeSpecial(uint8_t byte, Events& events);
  // True if the byte edited or ended the line.
  bool TypeCanonical(uint8_t byte, Events& events);
  void RaiseSignal(uint8_t byte, Events& events);
  void Append(uint8_t byte);
  void EndLine(uint8_t byte, bool is_eof, Events& events);
  void Erase(uint8_t byte);
  void EchoErased(uint8_t byte, bool several);
  void EchoErasedTab();
  void DropLine();
  void FinishErasing();
  void Reprint();
  void ThrottleSender(Events& events);

  void Echo(uint8_t byte);                         // With ^X for control characters.
  void EchoRaw(uint8_t byte);                      // Through output translation only.
  bool PutTranslated(uint8_t byte, size_t limit);  // False if there is no room.
  void PutOutput(uint8_t byte) { output_.push_back(byte); }

  Termios2 settings_ = DefaultTermios();
  std::deque<Cell> input_;
  size_t complete_ = 0;  // Leading cells of input_ that belong to finished lines.
  std::deque<uint8_t> output_;
  bool stopped_ = false;
  bool literal_next_ = false;
  bool erasing_ = false;    // Inside \.../ of ECHOPRT.
  bool throttled_ = false;  // STOP was sent because of IXOFF.
  uint32_t column_ = 0;
  uint32_t line_column_ = 0;  // Where the line being typed began.
};

}  // namespace sentry
