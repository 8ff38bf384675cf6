#include "runsc-cli/main/boot_config.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <type_traits>

#include "absl/strings/str_cat.h"

namespace runsc {
namespace {

constexpr uint32_t kMagic = 0x4e4c5652;         // "RVLN"
constexpr uint32_t kProcessMagic = 0x504c5652;  // "RVLP"
constexpr uint32_t kVersion = 1;
// More than execve's own limit on arguments and environment.
constexpr size_t kBytesMax = 16 << 20;

// Both directions visit the fields in one order: the one here, and in Visit below.
template <typename Point, typename Visitor>
  requires std::is_same_v<std::remove_const_t<Point>, AttachPoint>
void VisitFields(Point& point, Visitor& visit) {
  visit(point.name);
  visit(point.guest_path);
  visit(point.read_only);
  visit(point.is_directory);
}

template <typename Mount, typename Visitor>
  requires std::is_same_v<std::remove_const_t<Mount>, GuestMount>
void VisitFields(Mount& mount, Visitor& visit) {
  visit(mount.destination);
  visit(mount.type);
  visit(mount.source);
  visit(mount.data);
  visit(mount.attach);
  visit(mount.flags);
  visit(mount.is_directory);
}

class Encoder {
 public:
  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void operator()(const T& value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void operator()(const std::string& text) {
    (*this)(static_cast<uint32_t>(text.size()));
    bytes_ += text;
  }
  template <typename T>
  void operator()(const std::vector<T>& list) {
    (*this)(static_cast<uint32_t>(list.size()));
    for (const T& item : list) (*this)(item);
  }
  void operator()(const AttachPoint& point) { VisitFields(point, *this); }
  void operator()(const GuestMount& mount) { VisitFields(mount, *this); }
  std::string Take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class Decoder {
 public:
  explicit Decoder(std::span<const char> bytes) : bytes_(bytes) {}

  template <typename T>
    requires std::is_trivially_copyable_v<T>
  void operator()(T& value) {
    if (bytes_.size() < sizeof(value)) {
      ok_ = false;
      return;
    }
    memcpy(&value, bytes_.data(), sizeof(value));
    bytes_ = bytes_.subspan(sizeof(value));
  }
  void operator()(bool& value) {
    uint8_t byte = 0;
    (*this)(byte);
    value = byte != 0;
  }
  void operator()(std::string& text) {
    const size_t size = Count();
    if (!ok_) return;
    text.assign(bytes_.data(), size);
    bytes_ = bytes_.subspan(size);
  }
  template <typename T>
  void operator()(std::vector<T>& list) {
    const size_t size = Count();
    for (size_t i = 0; i < size && ok_; ++i) {
      T item{};
      (*this)(item);
      list.push_back(std::move(item));
    }
  }
  void operator()(AttachPoint& point) { VisitFields(point, *this); }
  void operator()(GuestMount& mount) { VisitFields(mount, *this); }
  bool complete() const { return ok_ && bytes_.empty(); }

 private:
  // A length; each item takes at least a byte.
  size_t Count() {
    uint32_t count = 0;
    (*this)(count);
    if (count > bytes_.size()) ok_ = false;
    return ok_ ? count : 0;
  }

  std::span<const char> bytes_;
  bool ok_ = true;
};

template <typename Config, typename Visitor>
void VisitProcess(Config& config, Visitor& visit) {
  visit(config.arguments);
  visit(config.environment);
  visit(config.cwd);
  visit(config.uid);
  visit(config.gid);
  visit(config.groups);
  visit(config.umask);
  visit(config.ignored_signals);
  visit(config.stdio_open);
  visit(config.terminal);
  visit(config.stdio_terminals);
  visit(config.terminal_size);
  visit(config.limits);
  visit(config.has_capabilities);
  visit(config.capabilities);
  visit(config.no_new_privileges);
  visit(config.oom_score_adjust);
  visit(config.seccomp);
}

template <typename Config, typename Visitor>
void Visit(Config& config, Visitor& visit) {
  VisitProcess(config, visit);
  visit(config.attach_points);
  visit(config.debug);
  visit(config.has_log);
  visit(config.timing);
  visit(config.single_owner_view);
  visit(config.host_network);
  visit(config.provoke_violation);
  visit(config.host_name);
  visit(config.platform);
  visit(config.rewrite);
  visit(config.strace);
  visit(config.network.own_stack);
  visit(config.network.links);
  visit(config.network.addresses);
  visit(config.network.routes);
  visit(config.network.neighbors);
  visit(config.container);
  visit(config.domain_name);
  visit(config.mounts);
  visit(config.masked_paths);
  visit(config.read_only_paths);
  visit(config.root_shared);
  visit(config.cpu_count);
  visit(config.memory_bytes);
  visit(config.tasks_max);
}

absl::Status HostError(const char* what) {
  return absl::InternalError(absl::StrCat("cannot ", what, ": ", strerror(errno)));
}

absl::Status WrongVersion() {
  return absl::InvalidArgumentError(
      "the start-up message is not of this version: runsc and its helpers must come from one "
      "build");
}

absl::Status Damaged() {
  return absl::InvalidArgumentError(
      "the start-up message is damaged: runsc and its helpers must come from one build");
}

bool DecodeStart(Decoder& decoder, uint32_t magic_wanted) {
  uint32_t magic = 0;
  uint32_t version = 0;
  decoder(magic);
  decoder(version);
  return magic == magic_wanted && version == kVersion;
}

absl::StatusOr<base::Fd> WriteSealed(const std::string& bytes) {
  if (bytes.size() > kBytesMax) {
    return absl::InvalidArgumentError("the arguments and the environment are longer than 16 MiB");
  }
  base::Fd fd(memfd_create("ravelin-config", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return HostError("create a memfd (memfd_create)");
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t written = write(fd.get(), bytes.data() + done, bytes.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return HostError("write to a memfd");
    done += static_cast<size_t>(written);
  }
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
    return HostError("seal a memfd");
  }
  return fd;
}

absl::StatusOr<std::string> ReadAll(int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0) return HostError("read the start-up message; start runsc instead");
  if (status.st_size <= 0 || static_cast<uint64_t>(status.st_size) > kBytesMax) {
    return absl::InvalidArgumentError("no start-up message; start runsc instead");
  }
  std::string bytes(static_cast<size_t>(status.st_size), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t got =
        pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return HostError("read the start-up message");
    done += static_cast<size_t>(got);
  }
  return bytes;
}

}  // namespace

std::string EncodeBootConfig(const BootConfig& config) {
  Encoder encoder;
  encoder(kMagic);
  encoder(kVersion);
  Visit(config, encoder);
  return encoder.Take();
}

absl::StatusOr<BootConfig> DecodeBootConfig(std::span<const char> bytes) {
  Decoder decoder(bytes);
  if (!DecodeStart(decoder, kMagic)) return WrongVersion();
  BootConfig config;
  Visit(config, decoder);
  if (!decoder.complete()) return Damaged();
  return config;
}

absl::StatusOr<base::Fd> WriteBootConfig(const BootConfig& config) {
  return WriteSealed(EncodeBootConfig(config));
}

absl::StatusOr<BootConfig> ReadBootConfig(int fd) {
  const absl::StatusOr<std::string> bytes = ReadAll(fd);
  if (!bytes.ok()) return bytes.status();
  return DecodeBootConfig(*bytes);
}

absl::StatusOr<base::Fd> WriteProcessConfig(const ProcessConfig& config) {
  Encoder encoder;
  encoder(kProcessMagic);
  encoder(kVersion);
  VisitProcess(config, encoder);
  return WriteSealed(encoder.Take());
}

absl::StatusOr<ProcessConfig> ReadProcessConfig(int fd) {
  const absl::StatusOr<std::string> bytes = ReadAll(fd);
  if (!bytes.ok()) return bytes.status();
  Decoder decoder(*bytes);
  if (!DecodeStart(decoder, kProcessMagic)) return WrongVersion();
  ProcessConfig config;
  VisitProcess(config, decoder);
  if (!decoder.complete()) return Damaged();
  return config;
}

}  // namespace runsc
