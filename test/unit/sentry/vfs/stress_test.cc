// Several threads change one tree at once. What is checked is that nothing is lost: no deadlock
// (Abseil's detector aborts on a wrong order), no crash, and a tree that hangs together at the end.

#include <linux/fs.h>

#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"
#include "sentry/fs/overlay/overlay.h"
#include "test/unit/sentry/vfs/tree.h"

namespace {

using test::Tree;

constexpr int kThreads = 4;
constexpr int kCalls = 4000;

std::string RandomPath(std::mt19937& random) {
  static const char* const kNames[] = {"a", "b", "c", "d"};
  std::string path;
  for (uint32_t depth = random() % 4 + 1; depth > 0; --depth) {
    path += std::string("/") + (random() % 12 == 0 ? ".." : kNames[random() % 4]);
  }
  return path;
}

void Churn(Tree& tree, uint32_t seed) {
  std::mt19937 random(seed);
  for (int i = 0; i < kCalls; ++i) {
    const std::string path = RandomPath(random);
    const std::string other = RandomPath(random);
    switch (random() % 10) {
      case 0:
      case 1:
        tree.Mkdir(path);
        break;
      case 2:
        tree.Touch(path);
        break;
      case 3:
        tree.Unlink(path);
        break;
      case 4:
        tree.Rmdir(path);
        break;
      case 5:
      case 6:
        tree.Rename(path, other, random() % 4 == 0 ? RENAME_EXCHANGE : 0);
        break;
      case 7:
        tree.Link(path, other);
        break;
      default: {
        const auto found = tree.Walk(path);
        if (!found.ok()) break;
        tree.vfs.NameOf(found.value(), tree.vfs.root());
        uint64_t offset = 0;
        (void)found.value()
            .dentry->inode()
            ->ReadEntries(&offset, [](const sentry::DirectoryEntry&) { return true; })
            .ok();
      }
    }
  }
}

// Objects reachable; each directory's count of links fits what is in it.
size_t CountObjects(sentry::Inode& directory) {
  std::vector<std::string> names;
  uint64_t offset = 0;
  REQUIRE(directory
              .ReadEntries(&offset,
                           [&](const sentry::DirectoryEntry& entry) {
                             names.emplace_back(entry.name);
                             return true;
                           })
              .ok());
  CHECK(std::set<std::string>(names.begin(), names.end()).size() == names.size());
  size_t objects = 1;
  uint32_t directories = 0;
  for (const std::string& name : names) {
    const sentry::InodeRef child = directory.Lookup(name).value();
    if (child->type() == S_IFDIR) ++directories;
    objects += child->type() == S_IFDIR ? CountObjects(*child) : 1;
  }
  CHECK(directory.GetAttributes().value().nlink == directories + 2);
  return objects;
}

void ChurnTogether(Tree& tree) {
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kThreads; ++i) threads.emplace_back([&tree, i] { Churn(tree, i + 1); });
  for (std::thread& thread : threads) thread.join();
  CountObjects(*tree.vfs.root().dentry->inode());
}

TEST_CASE("threads may change a tmpfs at once", "[vfs][stress]") {
  Tree tree;
  ChurnTogether(tree);
}

TEST_CASE("threads may change an overlay at once", "[vfs][stress][overlay]") {
  Tree below;
  Churn(below, 99);
  Tree tree(sentry::Overlay::Create(below.file_system,
                                    sentry::Tmpfs::Create(*below.pool, below.clock, {}))
                .value());
  ChurnTogether(tree);
}

}  // namespace
