// execve of a hostile file: whatever its bytes are, the loader refuses it or fills an address
// space, and the address space gives everything back.
//
// The input is the program; where it names an interpreter or is a script, the input is that too. So
// one file exercises all three parsers.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "platform/memory/memory_pool.h"
#include "sentry/loader/loader.h"
#include "sentry/mm/memory_manager.h"
#include "test/unit/sentry/loader/loader_fixture.h"

namespace {

class SameFileOpener final : public sentry::ProgramOpener {
 public:
  explicit SameFileOpener(std::shared_ptr<sentry::ProgramFile> file) : file_(std::move(file)) {}
  base::Result<std::shared_ptr<sentry::ProgramFile>> Open(std::string_view) override {
    return file_;
  }

 private:
  std::shared_ptr<sentry::ProgramFile> file_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<platform::MemoryPool> pool =
      platform::MemoryPool::Create(uint64_t{1} << 40).value();
  static test::FakePlatform platform;
  test::CountingRandom random;
  const auto file = test::MakeProgram({reinterpret_cast<const char*>(data), size});
  SameFileOpener opener(file);
  sentry::PrepareRequest prepare;
  prepare.program = file;
  prepare.path = "/fuzz";
  prepare.arguments.argv = {"fuzz", "argument"};
  prepare.arguments.envp = {"HOME=/"};
  const base::Result<sentry::PreparedProgram> program =
      sentry::PrepareProgram(std::move(prepare), opener);
  if (!program.ok()) return 0;
  {
    const auto memory = sentry::MemoryManager::Create(platform, *pool, 1).value();
    const sentry::LoadRequest load{.program = program.value(),
                                   .credentials = std::make_shared<sentry::Credentials>(),
                                   .random = random};
    const base::Result<sentry::LoadedImage> image = sentry::LoadProgram(load, *memory);
    if (image.ok() && image.value().stack_pointer % 16 != 0) abort();
    // The kernel would now fault the entry point in.
    if (image.ok()) memory->HandleFault(image.value().entry, platform::kAccessExec);
  }
  if (pool->allocated_bytes() != 0) abort();
  return 0;
}
