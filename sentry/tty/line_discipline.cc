#include "sentry/tty/line_discipline.h"

#include <algorithm>

namespace sentry {
namespace {

constexpr size_t kThrottleRoom = 128;

// ASCII's control characters only: as in the kernel's table, 0x80..0x9f are not.
constexpr bool IsControl(uint8_t byte) { return byte < 0x20 || byte == 0x7f; }
constexpr bool IsContinuation(uint8_t byte) { return (byte & 0xc0) == 0x80; }
constexpr bool IsWordPart(uint8_t byte) {
  if (byte == '_') return true;
  if (byte >= 0xc0) return byte != 0xd7 && byte != 0xf7;
  return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
         (byte >= 'A' && byte <= 'Z');
}

}  // namespace

void LineDiscipline::SetSettings(const Termios2& settings, Events& events) {
  const Termios2 old = settings_;
  settings_ = settings;
  if (((old.c_lflag ^ settings.c_lflag) & ICANON) != 0) {
    // What was typed so far becomes readable, in either direction.
    for (Cell& cell : input_) cell.ends_line = cell.is_eof = false;
    complete_ = 0;
    if (Local(ICANON) && !input_.empty()) {
      input_.back().ends_line = true;
      complete_ = input_.size();
    }
    literal_next_ = erasing_ = false;
    events.input_ready = true;
  }
  if (!Input(IXON) && stopped_) Start(events);
  const auto flow_keys = [](const Termios2& s) {
    return (s.c_iflag & IXON) != 0 && s.c_cc[VSTART] == ('Q' ^ 0x40) &&
           s.c_cc[VSTOP] == ('S' ^ 0x40);
  };
  if (flow_keys(old) != flow_keys(settings)) {
    const int change = flow_keys(settings) ? TIOCPKT_DOSTOP : TIOCPKT_NOSTOP;
    events.packet = static_cast<uint8_t>(events.packet | change);
  }
  events.input_room = true;
}

bool LineDiscipline::InputFull() const {
  if (input_.size() + 1 < kInputBytesMax) return false;
  // A line that is too long is cut rather than held back: its newline has to come through.
  return !(Local(ICANON) && complete_ == 0);
}

size_t LineDiscipline::Type(std::span<const uint8_t> bytes, Events& events) {
  size_t taken = 0;
  const size_t readable_before = InputAvailable(false);
  const size_t output_before = output_.size();
  for (const uint8_t byte : bytes) {
    if (InputFull()) break;
    TypeOne(byte, events);
    ++taken;
  }
  ThrottleSender(events);
  if (InputAvailable(false) != readable_before) events.input_ready = true;
  if (output_.size() != output_before) events.output_ready = true;
  return taken;
}

void LineDiscipline::ThrottleSender(Events& events) {
  if (Input(IXOFF) && !throttled_ && input_.size() + kThrottleRoom >= kInputBytesMax) {
    throttled_ = true;
    SendRaw(settings_.c_cc[VSTOP], events);
  }
}

void LineDiscipline::TypeOne(uint8_t byte, Events& events) {
  if (Input(ISTRIP)) byte &= 0x7f;
  if (Input(IUCLC) && Local(IEXTEN) && byte >= 'A' && byte <= 'Z')
    byte = static_cast<uint8_t>(byte + 32);
  if (literal_next_) {
    literal_next_ = false;
  } else {
    if (TypeSpecial(byte, events)) return;
    if (stopped_ && Input(IXON) && Input(IXANY)) Start(events);
    if (byte == '\r') {
      if (Input(IGNCR)) return;
      if (Input(ICRNL)) byte = '\n';
    } else if (byte == '\n' && Input(INLCR)) {
      byte = '\r';
    }
    if (Local(ICANON) && TypeCanonical(byte, events)) return;
  }
  if (Local(ECHO)) {
    FinishErasing();
    if (input_.size() == complete_) line_column_ = column_;
    if (byte == '\n') {
      EchoRaw(byte);
    } else {
      Echo(byte);
    }
  }
  if (byte == 0xff && Input(PARMRK)) Append(byte);
  Append(byte);
}

bool LineDiscipline::TypeSpecial(uint8_t byte, Events& events) {
  if (Input(IXON)) {
    if (Is(VSTART, byte)) {
      Start(events);
      return true;
    }
    if (Is(VSTOP, byte)) {
      Stop(events);
      return true;
    }
  }
  if (!Local(ISIG)) return false;
  if (Is(VINTR, byte)) {
    events.interrupt = true;
  } else if (Is(VQUIT, byte)) {
    events.quit = true;
  } else if (Is(VSUSP, byte)) {
    events.suspend = true;
  } else {
    return false;
  }
  RaiseSignal(byte, events);
  return true;
}

void LineDiscipline::RaiseSignal(uint8_t byte, Events& events) {
  if (!Local(NOFLSH)) {
    FlushInput(events);
    FlushOutput(events);
  }
  if (Input(IXON)) Start(events);
  if (Local(ECHO)) {
    Echo(byte);
    events.output_ready = true;
  }
}

bool LineDiscipline::TypeCanonical(uint8_t byte, Events& events) {
  const bool extended = Local(IEXTEN);
  if (Is(VERASE, byte) || Is(VKILL, byte) || (extended && Is(VWERASE, byte))) {
    Erase(byte);
    return true;
  }
  if (extended && Is(VLNEXT, byte)) {
    literal_next_ = true;
    if (Local(ECHO)) {
      FinishErasing();
      if (Local(ECHOCTL)) {
        EchoRaw('^');
        EchoRaw('\b');
      }
    }
    return true;
  }
  if (extended && Is(VREPRINT, byte) && Local(ECHO)) {
    FinishErasing();
    Echo(byte);
    EchoRaw('\n');
    Reprint();
    return true;
  }
  if (byte == '\n') {
    if (Local(ECHO) || Local(ECHONL)) EchoRaw('\n');
    EndLine(byte, false, events);
    return true;
  }
  if (Is(VEOF, byte)) {
    EndLine(0, true, events);
    return true;
  }
  if (Is(VEOL, byte) || (extended && Is(VEOL2, byte))) {
    if (Local(ECHO)) {
      if (input_.size() == complete_) line_column_ = column_;
      Echo(byte);
    }
    EndLine(byte, false, events);
    return true;
  }
  return false;
}

void LineDiscipline::Append(uint8_t byte) {
  // Too long a line: what is beyond is lost, with a bell.
  const size_t limit = Local(ICANON) ? kInputBytesMax - 1 : kInputBytesMax;
  if (input_.size() >= limit) {
    if (Input(IMAXBEL)) EchoRaw('\a');
    return;
  }
  input_.push_back({byte, false, false});
}

void LineDiscipline::EndLine(uint8_t byte, bool is_eof, Events& events) {
  if (input_.size() < kInputBytesMax) {
    input_.push_back({byte, true, is_eof});
  } else {
    input_.back().ends_line = true;
  }
  complete_ = input_.size();
  erasing_ = false;
  events.input_ready = true;
}

void LineDiscipline::DropLine() { input_.resize(complete_); }

void LineDiscipline::Erase(uint8_t byte) {
  if (input_.size() == complete_) return;
  const bool whole_line = Is(VKILL, byte) && !Is(VERASE, byte);
  const bool word = !whole_line && !Is(VERASE, byte);
  if (whole_line && !Local(ECHO)) {
    DropLine();
    return;
  }
  if (whole_line && !(Local(ECHOK) && Local(ECHOKE) && Local(ECHOE))) {
    DropLine();
    FinishErasing();
    Echo(byte);
    if (Local(ECHOK)) EchoRaw('\n');
    return;
  }
  bool seen_word = false;
  while (input_.size() > complete_) {
    size_t start = input_.size() - 1;
    while (Input(IUTF8) && start > complete_ && IsContinuation(input_[start].byte)) --start;
    const uint8_t first = input_[start].byte;
    if (word) {
      if (IsWordPart(first)) {
        seen_word = true;
      } else if (seen_word) {
        break;
      }
    }
    input_.resize(start);
    if (Local(ECHO)) EchoErased(first, whole_line || word);
    if (!whole_line && !word) break;
  }
  if (input_.size() == complete_ && Local(ECHO)) FinishErasing();
}

void LineDiscipline::EchoErased(uint8_t byte, bool several) {
  if (Local(ECHOPRT)) {
    if (!erasing_) EchoRaw('\\');
    erasing_ = true;
    Echo(byte);
    return;
  }
  if (!several && !Local(ECHOE)) {
    Echo(settings_.c_cc[VERASE]);
    return;
  }
  if (byte == '\t') {
    EchoErasedTab();
    return;
  }
  const auto rub_out = [this] {
    EchoRaw('\b');
    EchoRaw(' ');
    EchoRaw('\b');
  };
  if (IsControl(byte) && Local(ECHOCTL)) rub_out();
  if (!IsControl(byte) || Local(ECHOCTL)) rub_out();
}

// How far the erased tab had moved the cursor follows from what stands before it on the line.
void LineDiscipline::EchoErasedTab() {
  uint32_t columns = 0;
  bool after_tab = false;
  for (size_t i = input_.size(); i > complete_; --i) {
    const uint8_t byte = input_[i - 1].byte;
    if (byte == '\t') {
      after_tab = true;
      break;
    }
    if (IsControl(byte)) {
      if (Local(ECHOCTL)) columns += 2;
    } else if (!(Input(IUTF8) && IsContinuation(byte))) {
      ++columns;
    }
  }
  if (!after_tab) columns += line_column_;
  for (uint32_t back = 8 - (columns & 7); back > 0; --back) EchoRaw('\b');
}

void LineDiscipline::FinishErasing() {
  if (!erasing_) return;
  EchoRaw('/');
  erasing_ = false;
}

void LineDiscipline::Reprint() {
  for (size_t i = complete_; i < input_.size(); ++i) Echo(input_[i].byte);
}

void LineDiscipline::Echo(uint8_t byte) {
  if (Local(ECHOCTL) && IsControl(byte) && byte != '\t') {
    EchoRaw('^');
    EchoRaw(static_cast<uint8_t>(byte ^ 0x40));
  } else {
    EchoRaw(byte);
  }
}

void LineDiscipline::EchoRaw(uint8_t byte) { (void)PutTranslated(byte, kOutputBytesMax); }

bool LineDiscipline::PutTranslated(uint8_t byte, size_t limit) {
  const size_t room = limit - std::min(limit, output_.size());
  if (room < 1) return false;
  if (!Output(OPOST)) {
    PutOutput(byte);
    return true;
  }
  switch (byte) {
    case '\n':
      if (Output(ONLRET)) column_ = 0;
      if (Output(ONLCR)) {
        if (room < 2) return false;
        PutOutput('\r');
        column_ = 0;
      }
      line_column_ = column_;
      break;
    case '\r':
      if (Output(ONOCR) && column_ == 0) return true;
      if (Output(OCRNL)) {
        byte = '\n';
        if (Output(ONLRET)) column_ = line_column_ = 0;
      } else {
        column_ = line_column_ = 0;
      }
      break;
    case '\t': {
      const uint32_t spaces = 8 - (column_ & 7);
      if ((settings_.c_oflag & TABDLY) == XTABS) {
        if (room < spaces) return false;
        column_ += spaces;
        for (uint32_t i = 0; i < spaces; ++i) PutOutput(' ');
        return true;
      }
      column_ += spaces;
      break;
    }
    case '\b':
      if (column_ > 0) --column_;
      break;
    default:
      if (!IsControl(byte)) {
        if (Output(OLCUC) && byte >= 'a' && byte <= 'z') byte = static_cast<uint8_t>(byte - 32);
        if (!(Input(IUTF8) && IsContinuation(byte))) ++column_;
      }
      break;
  }
  PutOutput(byte);
  return true;
}

size_t LineDiscipline::InputAvailable(bool for_poll) const {
  if (Local(ICANON)) return complete_;
  if (for_poll && settings_.c_cc[VTIME] == 0 && input_.size() < settings_.c_cc[VMIN]) return 0;
  return input_.size();
}

size_t LineDiscipline::InputQueued() const {
  if (!Local(ICANON)) return input_.size();
  return static_cast<size_t>(std::count_if(input_.begin(),
                                           input_.begin() + static_cast<ptrdiff_t>(complete_),
                                           [](const Cell& cell) { return !cell.is_eof; }));
}

size_t LineDiscipline::Read(std::span<uint8_t> out, Events& events) {
  const bool canonical = Local(ICANON);
  const size_t available = canonical ? complete_ : input_.size();
  size_t taken = 0;
  size_t copied = 0;
  bool line_ended = false;
  while (taken < available && copied < out.size() && !line_ended) {
    const Cell& cell = input_[taken++];
    line_ended = canonical && cell.ends_line;
    if (!(canonical && cell.is_eof)) out[copied++] = cell.byte;
  }
  // A read that took everything before an end-of-file mark takes the mark too: the next one is not
  // empty.
  if (canonical && !line_ended && taken < available && input_[taken].is_eof) ++taken;
  input_.erase(input_.begin(), input_.begin() + static_cast<ptrdiff_t>(taken));
  if (canonical) complete_ -= taken;
  if (taken > 0) events.input_room = true;
  if (throttled_ && input_.size() + 2 * kThrottleRoom < kInputBytesMax) {
    throttled_ = false;
    SendRaw(settings_.c_cc[VSTART], events);
  }
  return copied;
}

size_t LineDiscipline::Write(std::span<const uint8_t> bytes, Events& events) {
  if (stopped_) return 0;
  size_t taken = 0;
  for (const uint8_t byte : bytes) {
    if (!PutTranslated(byte, kOutputBytesMax - kEchoReserve)) break;
    ++taken;
  }
  if (taken > 0) events.output_ready = true;
  return taken;
}

size_t LineDiscipline::TakeOutput(std::span<uint8_t> out, Events& events) {
  const size_t count = std::min(out.size(), output_.size());
  std::copy_n(output_.begin(), count, out.begin());
  output_.erase(output_.begin(), output_.begin() + static_cast<ptrdiff_t>(count));
  if (count > 0 && CanWrite()) events.output_room = true;
  return count;
}

void LineDiscipline::FlushInput(Events& events) {
  input_.clear();
  complete_ = 0;
  literal_next_ = erasing_ = false;
  events.input_room = true;
  events.packet |= TIOCPKT_FLUSHREAD;
}

void LineDiscipline::FlushOutput(Events& events) {
  output_.clear();
  events.output_room = true;
  events.packet |= TIOCPKT_FLUSHWRITE;
}

void LineDiscipline::Stop(Events& events) {
  if (stopped_) return;
  stopped_ = true;
  events.packet = static_cast<uint8_t>((events.packet & ~TIOCPKT_START) | TIOCPKT_STOP);
}

void LineDiscipline::Start(Events& events) {
  if (!stopped_) return;
  stopped_ = false;
  events.packet = static_cast<uint8_t>((events.packet & ~TIOCPKT_STOP) | TIOCPKT_START);
  events.output_room = true;
}

void LineDiscipline::SendRaw(uint8_t byte, Events& events) {
  if (byte == 0 || output_.size() >= kOutputBytesMax) return;
  PutOutput(byte);
  events.output_ready = true;
}

}  // namespace sentry
