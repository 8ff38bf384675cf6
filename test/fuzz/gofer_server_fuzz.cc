// What a hostile sentry can send: a sequence of messages, each a 16-bit length and bytes, to a
// session on a small scratch tree. Besides not crashing: nothing outside of the tree may be
// donated.

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "gofer/protocol/channel.h"
#include "gofer/protocol/wire.h"
#include "gofer/server/host.h"
#include "gofer/server/session.h"

namespace {

constexpr size_t kMessagesMax = 64;

[[noreturn]] void Fail(const char* what) {
  fprintf(stderr, "gofer_server_fuzz: %s\n", what);
  abort();
}

// A scratch tree that is made anew for each input.
class Scratch {
 public:
  Scratch() {
    std::string pattern =
        access("/dev/shm", W_OK) == 0 ? "/dev/shm/gofer_fuzz.XXXXXX" : "/tmp/gofer_fuzz.XXXXXX";
    if (mkdtemp(pattern.data()) == nullptr) Fail("no scratch directory");
    path_ = pattern;
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

  void Reset() {
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      std::filesystem::remove_all(entry.path());
    }
    std::filesystem::create_directory(path_ + "/a");
    std::filesystem::create_symlink("/etc", path_ + "/l");
    close(open((path_ + "/a/f").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    mkfifo((path_ + "/p").c_str(), 0644);
  }

 private:
  std::string path_;
};

gofer::AttachPoint Point(const std::string& path, const char* name, bool read_only) {
  gofer::AttachPoint point;
  point.name = name;
  point.root_path_fd = base::Fd(open(path.c_str(), O_PATH | O_CLOEXEC));
  point.read_only = read_only;
  return point;
}

// A donated descriptor must be a regular file of the tree's device that is really in the tree.
void CheckDonation(int fd, const std::string& tree) {
  char target[4096];
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t length = readlink(link.c_str(), target, sizeof(target));
  if (length < 0) Fail("a donated descriptor without a name");
  if (std::string(target, static_cast<size_t>(length)).rfind(tree + "/", 0) != 0) {
    Fail("a donated descriptor from outside the tree");
  }
  struct stat status;
  if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
    Fail("a donation that is no regular file");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Scratch scratch;
  scratch.Reset();
  gofer::Session::Options options;
  options.attach_points.push_back(Point(scratch.path(), "root", false));
  options.attach_points.push_back(Point(scratch.path(), "ro", true));
  absl::StatusOr<base::Fd> proc = gofer::host::OpenProcSelfFd();
  if (!proc.ok()) Fail("no /proc");
  options.proc_self_fd = *std::move(proc);
  options.descriptors_max = 32;
  gofer::Session session(std::move(options));

  gofer::WireBuffer arrived(gofer::kMessageBytesMax);
  gofer::WireBuffer scratch_words(gofer::kMessageBytesMax);
  gofer::WireBuffer out(gofer::kMessageBytesMax);
  for (size_t i = 0; i < kMessagesMax && size >= 2; ++i) {
    const size_t stated = static_cast<size_t>(data[0]) | static_cast<size_t>(data[1]) << 8;
    data += 2;
    size -= 2;
    const size_t length = stated < size ? stated : size;
    std::memcpy(arrived.bytes().data(), data, length);
    data += length;
    size -= length;
    const auto request = gofer::DecodeRequest(arrived.bytes().first(length));
    if (!request.ok()) return 0;
    auto outcome = session.Handle(request.value());
    if (!outcome.ok()) return 0;
    if (outcome->donated) CheckDonation(outcome->donated.get(), scratch.path());
    if (!gofer::EncodeResponse(outcome->response, scratch_words, out.bytes()).ok()) {
      Fail("a response that does not fit");
    }
  }
  return 0;
}
