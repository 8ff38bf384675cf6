// Runs a fuzz target over files and directories of inputs, once each: what a build without
// libFuzzer links in its place. Each input is also tried cut short and with single bytes changed,
// which is a poor man's mutation, the same on every run.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kVariantsMax = 200;

void Replay(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<uint8_t> input{std::istreambuf_iterator<char>(in), {}};
  LLVMFuzzerTestOneInput(input.data(), input.size());
  const size_t step = input.size() / kVariantsMax + 1;
  for (size_t at = 0; at < input.size(); at += step) {
    // Exact size on the heap, so that a sanitizer sees one byte too many.
    std::vector<uint8_t> cut(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(at));
    LLVMFuzzerTestOneInput(cut.data(), cut.size());
    std::vector<uint8_t> changed = input;
    changed[at] ^= static_cast<uint8_t>(1U << (at % 8));
    LLVMFuzzerTestOneInput(changed.data(), changed.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  size_t inputs = 0;
  for (int i = 1; i < argc; ++i) {
    if (!std::filesystem::is_directory(argv[i])) {
      Replay(argv[i]);
      ++inputs;
      continue;
    }
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      Replay(entry.path());
      ++inputs;
    }
  }
  if (inputs == 0) {
    fprintf(stderr, "no inputs\n");
    return 1;
  }
  printf("%zu inputs replayed\n", inputs);
  return 0;
}
