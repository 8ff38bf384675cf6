#include "sentry/loader/loader.h"

#include <fcntl.h>
#include <sys/auxv.h>

#include <fstream>
#include <sstream>

#include "catch2/catch.hpp"
#include "sentry/loader/elf_image.h"
#include "test/unit/sentry/loader/loader_fixture.h"

namespace {

using namespace test;  // NOLINT: the fixture's names are the test's vocabulary
using base::UserAddr;
using sentry::MemoryManager;
using sentry::PreparedProgram;
using sentry::PrepareRequest;

constexpr uint64_t kPage = 4096;

template <typename T>
int ErrorOf(const base::Result<T>& result) {
  return result.ok() ? 0 : result.error().value();
}

struct Machine {
  Machine() : pool(platform::MemoryPool::Create(uint64_t{1} << 40).value()) {}

  base::Result<PreparedProgram> Prepare(std::string_view content,
                                        std::vector<std::string> argv = {"prog", "one"},
                                        std::vector<std::string> envp = {"A=b"}) {
    PrepareRequest request;
    request.program = MakeProgram(content);
    request.path = "/bin/prog";
    request.path_is_closed = path_is_closed;
    request.arguments.argv = std::move(argv);
    request.arguments.envp = std::move(envp);
    return sentry::PrepareProgram(std::move(request), opener);
  }
  base::Result<sentry::LoadedImage> Load(const PreparedProgram& program) {
    memory = MemoryManager::Create(platform, *pool, randomize ? 12345 : 0).value();
    sentry::LoadRequest request{.program = program,
                                .credentials = std::make_shared<sentry::Credentials>(),
                                .secure = true,
                                .randomize = randomize,
                                .random = random};
    return sentry::LoadProgram(request, *memory);
  }
  base::Result<sentry::LoadedImage> Run(std::string_view content) {
    return Load(TRY(Prepare(content)));
  }
  uint64_t Word(uint64_t address) {
    return memory->CopyIn(base::UserIn<uint64_t>(UserAddr(address))).value();
  }
  std::string Text(uint64_t address) {
    return memory->CopyInString(UserAddr(address), 65536).value();
  }
  std::map<uint64_t, uint64_t> Auxv() {
    std::map<uint64_t, uint64_t> values;
    const std::vector<uint64_t> auxv = memory->image().auxv;
    for (size_t i = 0; i + 1 < auxv.size(); i += 2) values[auxv[i]] = auxv[i + 1];
    return values;
  }

  std::unique_ptr<platform::MemoryPool> pool;
  FakePlatform platform;
  MemoryOpener opener;
  CountingRandom random;
  bool randomize = false;
  bool path_is_closed = false;
  std::shared_ptr<MemoryManager> memory;
};

TEST_CASE("a static program gets its segments, its bss and its stack", "[loader]") {
  Machine machine;
  const auto image = machine.Run(StaticProgram().Bytes());
  REQUIRE(image.ok());
  CHECK(image.value().entry == 0x401000);
  CHECK(machine.Word(0x403000) == 0x7878787878787878);
  // The file's bytes end at 0x403800; from there on there are zeroes.
  CHECK(machine.Word(0x403800) == 0);
  CHECK(machine.Word(0x4067f8) == 0);
  CHECK(machine.memory->Brk(0) == 0x407000);
  const uint64_t sp = image.value().stack_pointer;
  CHECK(sp % 16 == 0);
  CHECK(machine.Word(sp) == 2);
  CHECK(machine.Text(machine.Word(sp + 8)) == "prog");
  CHECK(machine.Text(machine.Word(sp + 16)) == "one");
  CHECK(machine.Word(sp + 24) == 0);
  CHECK(machine.Text(machine.Word(sp + 32)) == "A=b");
  CHECK(machine.Word(sp + 40) == 0);
  const auto image_facts = machine.memory->image();
  CHECK(machine.Word(sp + 48) == image_facts.auxv[0]);
  CHECK(image_facts.start_code == 0x400000);
  CHECK(image_facts.arg_end - image_facts.arg_start == 9);
  CHECK(machine.Text(image_facts.env_start) == "A=b");
}

TEST_CASE("the auxiliary vector says what the program needs", "[loader]") {
  Machine machine;
  REQUIRE(machine.Run(StaticProgram().Bytes()).ok());
  auto auxv = machine.Auxv();
  CHECK(auxv[AT_PHDR] == 0x400040);
  CHECK(auxv[AT_PHNUM] == 2);
  CHECK(auxv[AT_PHENT] == 56);
  CHECK(auxv[AT_ENTRY] == 0x401000);
  CHECK(auxv[AT_BASE] == 0);
  CHECK(auxv[AT_PAGESZ] == kPage);
  CHECK(auxv[AT_CLKTCK] == 100);
  CHECK(auxv[AT_SECURE] == 1);
  CHECK(auxv[AT_HWCAP] == getauxval(AT_HWCAP));
  CHECK(machine.Text(auxv[AT_EXECFN]) == "/bin/prog");
  CHECK(machine.Text(auxv[AT_PLATFORM]) == "x86_64");
  CHECK(machine.Word(auxv[AT_RANDOM]) != 0);
  CHECK(auxv.count(AT_SYSINFO_EHDR) == 0);
}

TEST_CASE("a relocatable program goes where there is room, one with an interpreter high up",
          "[loader]") {
  Machine machine;
  ElfBuilder pie = StaticProgram();
  pie.header.e_type = ET_DYN;
  pie.header.e_entry = 0x1000;
  for (Elf64_Phdr& segment : pie.segments) segment.p_vaddr -= 0x400000;
  REQUIRE(machine.Run(pie.Bytes()).ok());
  const uint64_t base = machine.memory->image().start_code;
  CHECK(base > 0x7000'0000'0000);
  CHECK(machine.Auxv()[AT_ENTRY] == base + 0x1000);

  machine.opener.files["/lib/ld.so"] = MakeProgram(pie.Bytes());
  pie.AddInterpreter("/lib/ld.so");
  pie.segments[0].p_align = uint64_t{1} << 21;
  const auto image = machine.Run(pie.Bytes());
  REQUIRE(image.ok());
  auto auxv = machine.Auxv();
  CHECK(auxv[AT_ENTRY] - 0x1000 <= 0x5555'5555'4000);
  CHECK((auxv[AT_ENTRY] - 0x1000) % (uint64_t{1} << 21) == 0);
  CHECK(image.value().entry == auxv[AT_BASE] + 0x1000);
  CHECK(auxv[AT_BASE] > 0x7000'0000'0000);
}

TEST_CASE("places are random where they should be", "[loader]") {
  Machine machine;
  machine.randomize = true;
  const auto first = machine.Run(StaticProgram().Bytes());
  const uint64_t first_brk = machine.memory->Brk(0);
  const auto second = machine.Run(StaticProgram().Bytes());
  CHECK(first.value().stack_pointer != second.value().stack_pointer);
  CHECK(first_brk != machine.memory->Brk(0));
  CHECK(first.value().entry == second.value().entry);
}

TEST_CASE("files that are no programs are ENOEXEC", "[loader]") {
  Machine machine;
  ElfBuilder elf = StaticProgram();
  CHECK(ErrorOf(machine.Prepare("")) == ENOEXEC);
  CHECK(ErrorOf(machine.Prepare("echo hello\n")) == ENOEXEC);
  CHECK(ErrorOf(machine.Prepare("\177ELF")) == ENOEXEC);
  CHECK(ErrorOf(machine.Prepare(elf.Bytes().substr(0, 63))) == ENOEXEC);
  elf.header.e_machine = EM_386;
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == ENOEXEC);
  elf = StaticProgram();
  elf.header.e_type = ET_REL;
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == ENOEXEC);
  elf = StaticProgram();
  elf.header.e_phentsize = 32;
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == ENOEXEC);
  elf = StaticProgram();
  elf.header.e_phnum = 74;
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == ENOEXEC);
  elf = StaticProgram();
  elf.header.e_phoff = 0x2fff;
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == ENOEXEC);
  elf = StaticProgram();
  elf.AddInterpreter("x");
  elf.segments.back().p_filesz = 1;
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == ENOEXEC);
  elf.segments.back().p_filesz = 5000;
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == ENOEXEC);
  elf.segments.back().p_filesz = 3;
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == ENOEXEC);
}

TEST_CASE("an interpreter must exist and be one", "[loader]") {
  Machine machine;
  ElfBuilder elf = StaticProgram();
  elf.AddInterpreter("/lib/ld.so");
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == ENOENT);
  machine.opener.files["/lib/ld.so"] = MakeProgram(std::string(4096, 'z'));
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == ELIBBAD);
  machine.opener.files["/lib/ld.so"] = MakeProgram("short");
  CHECK(ErrorOf(machine.Prepare(elf.Bytes())) == EIO);
}

TEST_CASE("segments that no address space holds fail after the point of no return", "[loader]") {
  Machine machine;
  ElfBuilder elf = StaticProgram();
  elf.segments[0].p_vaddr = 0xffff'8000'0000'0000;
  CHECK(ErrorOf(machine.Run(elf.Bytes())) != 0);
  elf = StaticProgram();
  elf.segments[1].p_memsz = 0x10;
  CHECK(ErrorOf(machine.Run(elf.Bytes())) == EINVAL);
  elf = StaticProgram();
  elf.segments[1].p_vaddr += 1;
  CHECK(ErrorOf(machine.Run(elf.Bytes())) == EINVAL);
  elf = StaticProgram();
  elf.segments[1].p_memsz = ~uint64_t{0};
  CHECK(ErrorOf(machine.Run(elf.Bytes())) == ENOMEM);
  elf = StaticProgram();
  elf.segments[0].p_vaddr = 0;
  CHECK(ErrorOf(machine.Run(elf.Bytes())) == EPERM);
  elf = StaticProgram();
  elf.header.e_entry = ~uint64_t{0};
  CHECK(ErrorOf(machine.Run(elf.Bytes())) == EINVAL);
  elf = StaticProgram();
  elf.header.e_type = ET_DYN;
  elf.segments.clear();
  elf.AddInterpreter("/x");
  machine.opener.files["/x"] = MakeProgram(StaticProgram().Bytes());
  CHECK(ErrorOf(machine.Run(elf.Bytes())) == EINVAL);
}

TEST_CASE("scripts find their interpreter and hand themselves over", "[loader][script]") {
  Machine machine;
  machine.opener.files["/bin/sh"] = MakeProgram(StaticProgram().Bytes());
  auto prepared = machine.Prepare("#! /bin/sh -e -x \nexit\n");
  REQUIRE(prepared.ok());
  CHECK(prepared.value().arguments.argv ==
        std::vector<std::string>{"/bin/sh", "-e -x", "/bin/prog", "one"});
  CHECK(prepared.value().name == "prog");
  CHECK(prepared.value().path == "/bin/prog");
  prepared = machine.Prepare("#!/bin/sh\n", {});
  CHECK(prepared.value().arguments.argv == std::vector<std::string>{"/bin/sh", "/bin/prog"});
  CHECK(ErrorOf(machine.Prepare("#!\n")) == ENOEXEC);
  CHECK(ErrorOf(machine.Prepare("#!   \t \n")) == ENOEXEC);
  CHECK(ErrorOf(machine.Prepare("#!/no/such\n")) == ENOENT);
  CHECK(ErrorOf(machine.Prepare("#!/bin/" + std::string(300, 's') + "\n")) == ENOEXEC);
  CHECK(machine.Prepare("#!/bin/sh " + std::string(300, 's') + "\n").ok());
  CHECK(machine.Prepare("#!/bin/sh").ok());
  machine.path_is_closed = true;
  CHECK(ErrorOf(machine.Prepare("#!/bin/sh\n")) == ENOENT);
}

TEST_CASE("a chain of scripts has five links at most", "[loader][script]") {
  Machine machine;
  machine.opener.files["/s0"] = MakeProgram(StaticProgram().Bytes());
  for (int i = 1; i <= 5; i++) {
    machine.opener.files["/s" + std::to_string(i)] =
        MakeProgram("#!/s" + std::to_string(i - 1) + " a" + std::to_string(i) + "\n");
  }
  const auto prepared = machine.Prepare("#!/s4\n");
  REQUIRE(prepared.ok());
  CHECK(prepared.value().arguments.argv.front() == "/s0");
  CHECK(prepared.value().arguments.argv[1] == "a1");
  CHECK(ErrorOf(machine.Prepare("#!/s5\n")) == ELOOP);
}

TEST_CASE("arguments have limits", "[loader][limits]") {
  Machine machine;
  const std::string elf = StaticProgram().Bytes();
  const uint64_t longest = sentry::kArgumentBytesMax - 1;
  CHECK(machine.Prepare(elf, {std::string(longest, 'a')}).ok());
  CHECK(ErrorOf(machine.Prepare(elf, {std::string(longest + 1, 'a')})) == E2BIG);
  CHECK(machine.Prepare(elf, std::vector<std::string>(15, std::string(longest, 'a'))).ok());
  CHECK(ErrorOf(machine.Prepare(elf, std::vector<std::string>(16, std::string(longest, 'a')))) ==
        E2BIG);
  CHECK(sentry::CheckArgumentSize(128 * 1024 - 8, 1, 0).ok());
  CHECK_FALSE(sentry::CheckArgumentSize(128 * 1024 - 7, 1, 0).ok());
  CHECK_FALSE(sentry::CheckArgumentSize(0, ~uint64_t{0}, ~uint64_t{0}).ok());
  CHECK(sentry::CheckArgumentSize((6 << 20) - 8, 1, ~uint64_t{0}).ok());
  const auto big = machine.Prepare(elf, std::vector<std::string>(10, std::string(longest, 'a')));
  REQUIRE(machine.Load(big.value()).ok());
}

TEST_CASE("the programs of this machine load", "[loader]") {
  Machine machine;
  const auto read = [](const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::stringstream content;
    content << file.rdbuf();
    return content.str();
  };
  const std::string program = read("/bin/ls");
  if (program.empty()) return;
  machine.opener.files["/lib64/ld-linux-x86-64.so.2"] =
      MakeProgram(read("/lib64/ld-linux-x86-64.so.2"));
  machine.randomize = true;
  const auto image = machine.Run(program);
  REQUIRE(image.ok());
  CHECK(machine.Auxv()[AT_BASE] != 0);
}

}  // namespace
