#pragma once

// Messages for whoever called runsc, in the form that Docker, containerd and podman read: lines of
// logrus (text or JSON), appended to --log FILE or written to standard error.

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "platform/base/fd.h"

namespace oci {

class Logrus {
 public:
  // `path` empty: standard error. `format`: "text" or "json".
  absl::Status Open(const std::string& path, const std::string& format);

  void Error(std::string_view message) const;
  void Warning(std::string_view message) const;
  void Debug(std::string_view message) const;
  void set_debug(bool on) { debug_ = on; }

 private:
  void Write(const char* level, std::string_view message) const;

  base::Fd file_;
  bool json_ = false;
  bool debug_ = false;
};

// RFC 3339, as in state and log lines.
std::string TimeNow(bool with_nanoseconds);

}  // namespace oci
