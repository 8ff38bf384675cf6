// Many threads, few descriptors: fids are evicted while others use, bind and rename them. An
// unknown fid would end the connection, so what is checked is that it lives, and that content
// belongs to its name.

#include <fcntl.h>
#include <linux/fs.h>

#include <atomic>
#include <filesystem>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "test/unit/sentry/fs/gofer/fixture.h"

namespace {

using test::GoferVfs;

constexpr int kThreads = 6;
constexpr int kRounds = 400;

// Errors that a race of names may give.
bool IsExpected(base::Errno error) {
  for (const int expected : {ENOENT, EEXIST, ENOTEMPTY, EINVAL, ENOTDIR, EISDIR, ESTALE}) {
    if (error == expected) return true;
  }
  return false;
}

TEST_CASE("reads of stable files go on while others come, go and move", "[gofer][fs][stress]") {
  GoferVfs fs(true, 6);
  for (int d = 0; d < 4; ++d) {
    const std::string directory = fs.dir() / ("stable" + std::to_string(d));
    std::filesystem::create_directories(directory + "/deep/deeper");
    for (int f = 0; f < 4; ++f) {
      test::WriteFile(directory + "/deep/deeper/" + std::to_string(f), std::to_string(d * 4 + f));
    }
  }
  std::filesystem::create_directories(fs.dir() / "churn");
  std::atomic<int> wrong = 0;
  std::atomic<int> unexpected = 0;
  const auto note = [&](const auto& result) {
    if (!result.ok() && !IsExpected(result.error())) ++unexpected;
  };
  const auto read = [&](std::mt19937& random) {
    const auto d = random() % 4, f = random() % 4;
    const std::string path = "/stable" + std::to_string(d) + "/deep/deeper/" + std::to_string(f);
    auto found = fs.Find(path);
    if (!found.ok()) return note(found);
    auto file = std::static_pointer_cast<sentry::GoferRegular>(found.value());
    const auto opened = file->OpenHost(random() % 2 == 0);
    if (!opened.ok()) {
      ++wrong;
      return;
    }
    std::string text(16, '\0');
    sentry::IoBuffer buffer(std::as_writable_bytes(std::span(text)));
    const auto count = file->ReadInto(buffer, 0);
    if (!count.ok() || text.substr(0, count.value()) != std::to_string(d * 4 + f)) ++wrong;
    file->CloseHost();
  };
  const auto churn = [&](std::mt19937& random) {
    const auto name = [&] { return "/churn/" + std::to_string(random() % 6); };
    const sentry::Caller root = fs.Root();
    switch (random() % 7) {
      case 0:
        return note(fs.vfs().MakeDirectory(root, {}, name(), 0755));
      case 1:
        return note(fs.vfs().RemoveDirectory(root, {}, name()));
      case 2:
        return note(fs.vfs().MakeNode(root, {}, name() + "/" + std::to_string(random() % 3),
                                      S_IFREG | 0644, 0));
      case 3:
        return note(fs.vfs().Unlink(root, {}, name() + "/" + std::to_string(random() % 3)));
      case 4:
        return note(
            fs.vfs().Rename(root, {}, name(), {}, name(), random() % 2 == 0 ? RENAME_EXCHANGE : 0));
      case 5:
        return note(fs.Find(name() + "/" + std::to_string(random() % 3)));
      default: {
        auto found = fs.Find(name());
        if (!found.ok() || found.value()->type() != S_IFDIR) return;
        note(std::static_pointer_cast<sentry::GoferDirectory>(found.value())->List());
        note(found.value()->GetAttributes());
      }
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int round = 0; round < kRounds; ++round) {
        read(random);
        churn(random);
        if (round % 50 == 0) (void)fs.file_system().MakeRoom();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(unexpected == 0);
  CHECK(!fs.client().dead());
  // What the vfs believes is what the host has.
  for (int i = 0; i < 6; ++i) {
    const std::string name = "/churn/" + std::to_string(i);
    CHECK(fs.Find(name).ok() == std::filesystem::exists(fs.dir().path() + name));
    for (int j = 0; j < 3; ++j) {
      const std::string inner = name + "/" + std::to_string(j);
      CHECK(fs.Find(inner).ok() == std::filesystem::exists(fs.dir().path() + inner));
    }
  }
}

}  // namespace
