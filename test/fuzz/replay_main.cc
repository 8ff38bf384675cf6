// Runs a fuzz target without libFuzzer, which only clang has:
//
//   TARGET [-seconds=N] [-seed=N] INPUT...
//
// Files and directories of inputs once each, also cut short and with single bytes changed, the same
// on every run. Then, for N seconds, inputs made of those by random changes: the smoke test that is
// part of every test run. It is blind, as it sees no coverage; the preset "fuzz" is not. The input
// that ended the program is in the file "crash-input" of the working directory, and the seed is
// printed.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Input = std::vector<uint8_t>;
using Clock = std::chrono::steady_clock;

constexpr size_t kVariantsMax = 200;
constexpr size_t kInputBytesMax = 4096;
// Written before it is tried, removed at the end.
constexpr const char* kCrashInput = "crash-input";

Input Read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return Input{std::istreambuf_iterator<char>(in), {}};
}

void Replay(const Input& input) {
  LLVMFuzzerTestOneInput(input.data(), input.size());
  const size_t step = input.size() / kVariantsMax + 1;
  for (size_t at = 0; at < input.size(); at += step) {
    // Exact size on the heap, so that a sanitizer sees one byte too many.
    const Input cut(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(at));
    LLVMFuzzerTestOneInput(cut.data(), cut.size());
    Input changed = input;
    changed[at] ^= static_cast<uint8_t>(1U << (at % 8));
    LLVMFuzzerTestOneInput(changed.data(), changed.size());
  }
}

class Mutator {
 public:
  Mutator(const std::vector<Input>& corpus, uint64_t seed) : corpus_(corpus), random_(seed) {}

  Input Next() {
    Input input = corpus_[Below(corpus_.size())];
    for (size_t changes = 1 + Below(8); changes > 0; --changes) Change(input);
    if (input.size() > kInputBytesMax) input.resize(kInputBytesMax);
    input.shrink_to_fit();
    return input;
  }

 private:
  size_t Below(size_t limit) { return static_cast<size_t>(random_() % limit); }

  void Change(Input& input) {
    if (input.empty()) return input.push_back(static_cast<uint8_t>(random_()));
    const size_t at = Below(input.size());
    const auto here = input.begin() + static_cast<std::ptrdiff_t>(at);
    switch (Below(6)) {
      case 0:
        input[at] ^= static_cast<uint8_t>(1U << Below(8));
        break;
      case 1:
        input[at] = static_cast<uint8_t>(random_());
        break;
      case 2: {  // Numbers that matter: 0, -1, limits of their kinds.
        static constexpr uint8_t kValues[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
        const uint8_t value = kValues[Below(std::size(kValues))];
        const size_t end = std::min(input.size(), at + (size_t{1} << Below(4)));
        for (size_t i = at; i < end; ++i) input[i] = value;
        break;
      }
      case 3:
        input.erase(here, input.begin() + static_cast<std::ptrdiff_t>(
                                              std::min(input.size(), at + 1 + Below(16))));
        break;
      case 4:
        input.insert(here, 1 + Below(16), static_cast<uint8_t>(random_()));
        break;
      default: {  // The end of another.
        const Input& other = corpus_[Below(corpus_.size())];
        if (other.empty()) break;
        const auto from = other.begin() + static_cast<std::ptrdiff_t>(Below(other.size()));
        input.erase(here, input.end());
        input.insert(input.end(), from, other.end());
      }
    }
  }

  const std::vector<Input>& corpus_;
  std::mt19937_64 random_;
};

// How many inputs.
size_t Smoke(const std::vector<Input>& corpus, std::chrono::seconds length, uint64_t seed) {
  Mutator mutator(corpus, seed);
  const Clock::time_point end = Clock::now() + length;
  size_t runs = 0;
  for (; Clock::now() < end; ++runs) {
    const Input input = mutator.Next();
    {
      std::ofstream out(kCrashInput, std::ios::binary | std::ios::trunc);
      out.write(reinterpret_cast<const char*>(input.data()),
                static_cast<std::streamsize>(input.size()));
    }
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::filesystem::remove(kCrashInput);
  return runs;
}

}  // namespace

int main(int argc, char** argv) {
  constexpr std::string_view kSeconds = "-seconds=";
  constexpr std::string_view kSeed = "-seed=";
  std::chrono::seconds length{0};
  uint64_t seed = std::random_device{}();
  std::vector<Input> corpus;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with(kSeconds)) {
      length = std::chrono::seconds(atoi(argv[i] + kSeconds.size()));
    } else if (argument.starts_with(kSeed)) {
      seed = strtoull(argv[i] + kSeed.size(), nullptr, 0);
    } else if (!std::filesystem::is_directory(argument)) {
      corpus.push_back(Read(argument));
    } else {
      for (const auto& entry : std::filesystem::directory_iterator(argument))
        corpus.push_back(Read(entry.path()));
    }
  }
  if (corpus.empty()) {
    fprintf(stderr, "no inputs\n");
    return 1;
  }
  for (const Input& input : corpus) Replay(input);
  printf("%zu inputs replayed\n", corpus.size());
  if (length.count() > 0) {
    printf("seed %llu\n", static_cast<unsigned long long>(seed));
    fflush(stdout);
    printf("%zu inputs tried in %lld s\n", Smoke(corpus, length, seed),
           static_cast<long long>(length.count()));
  }
  return 0;
}
