#include "platform/stub/image.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "platform/base/check.h"
#include "platform/base/user_addr.h"
#include "platform/stub/filter_table.h"
#include "platform/stub/layout.h"

extern "C" {
extern const char ravelin_stub_begin[], ravelin_stub_end[], ravelin_stub_spawner[],
    ravelin_stub_handler[], ravelin_stub_restorer[], ravelin_stub_park[], ravelin_stub_fast_flags[],
    ravelin_stub_fast_pack[], ravelin_stub_fast_packed[], ravelin_stub_fast_rdx[],
    ravelin_stub_fast_stored[], ravelin_stub_fast_whole[], ravelin_stub_fast_published[],
    ravelin_stub_fast_trap[], ravelin_stub_fast_answered[], ravelin_stub_fast_yield[],
    ravelin_stub_fast_yielded[];
}

namespace platform {
namespace {

constexpr uint64_t kData = STUB_DATA;

uint64_t StubAddress(const char* symbol) {
  return STUB_TEXT + static_cast<uint64_t>(symbol - ravelin_stub_begin);
}

struct SockFprog {
  uint16_t length;
  uint16_t pad[3];
  uint64_t address;
};

// Puts a program at `offset` and its description at `description`; returns the next free offset.
uint64_t PutProgram(std::span<std::byte> data, uint64_t description, uint64_t offset,
                    const std::vector<sock_filter>& program) {
  const uint64_t bytes = program.size() * sizeof(sock_filter);
  CHECK(program.size() <= BPF_MAXINSNS && offset + bytes <= data.size());
  memcpy(&data[offset], program.data(), bytes);
  const SockFprog fprog{static_cast<uint16_t>(program.size()), {}, kData + offset};
  memcpy(&data[description], &fprog, sizeof(fprog));
  return offset + bytes;
}

std::vector<std::byte> MakeData() {
  std::vector<std::byte> data(STUB_DATA_BYTES);
  for (size_t i = 0; i < 256; i++) data[DATA_BYTES + i] = static_cast<std::byte>(i);
  const uint64_t end = STUB_TEXT + STUB_TEXT_BYTES;
  uint64_t next = PutProgram(data, DATA_PROCESS_PROG, DATA_PROGRAMS,
                             CompileFilter(StubProcessFilter(), STUB_TEXT, end));
  PutProgram(data, DATA_GUEST_PROG, next, CompileFilter(StubGuestFilter(), STUB_TEXT, end));
  return data;
}

bool WriteAll(int fd, const void* bytes, uint64_t size, uint64_t offset) {
  return pwrite(fd, bytes, size, static_cast<off_t>(offset)) == static_cast<ssize_t>(size);
}

}  // namespace

StubEntries GetStubEntries() {
  return {.spawner = StubAddress(ravelin_stub_spawner),
          .handler = StubAddress(ravelin_stub_handler),
          .restorer = StubAddress(ravelin_stub_restorer),
          .park = StubAddress(ravelin_stub_park),
          .fast = {.flags = StubAddress(ravelin_stub_fast_flags),
                   .pack = StubAddress(ravelin_stub_fast_pack),
                   .packed = StubAddress(ravelin_stub_fast_packed),
                   .rdx = StubAddress(ravelin_stub_fast_rdx),
                   .stored = StubAddress(ravelin_stub_fast_stored),
                   .whole = StubAddress(ravelin_stub_fast_whole),
                   .published = StubAddress(ravelin_stub_fast_published),
                   .trap = StubAddress(ravelin_stub_fast_trap),
                   .answered = StubAddress(ravelin_stub_fast_answered),
                   .yield = StubAddress(ravelin_stub_fast_yield),
                   .yielded = StubAddress(ravelin_stub_fast_yielded)}};
}

absl::StatusOr<StubImage> MakeStubImage() {
  const auto text_bytes = static_cast<uint64_t>(ravelin_stub_end - ravelin_stub_begin);
  CHECK(text_bytes <= STUB_TEXT_BYTES);
  const std::vector<std::byte> data = MakeData();
  StubImage image{base::Fd(memfd_create("ravelin-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING)),
                  base::PageUp(text_bytes), base::PageUp(data.size())};
  const int fd = image.memfd.get();
  if (fd < 0) return absl::ErrnoToStatus(errno, "stub image: memfd_create");
  if (ftruncate(fd, static_cast<off_t>(STUB_TEXT_BYTES + image.data_bytes)) != 0 ||
      !WriteAll(fd, ravelin_stub_begin, text_bytes, 0) ||
      !WriteAll(fd, data.data(), data.size(), STUB_TEXT_BYTES)) {
    return absl::ErrnoToStatus(errno, "stub image: write");
  }
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
    return absl::ErrnoToStatus(errno, "stub image: seal");
  }
  return image;
}

}  // namespace platform
