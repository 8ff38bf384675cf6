// /proc as bash, ps, top, free, python, go, java and node read it: fields are where their parsers
// look.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"

extern "C" char** environ;

namespace {

std::string Read(const std::string& path) {
  std::ifstream file(path);
  CAPTURE(path);
  REQUIRE(file.good());
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> Words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

// "Name:   value" lines.
std::map<std::string, std::string> Fields(const std::string& path) {
  std::map<std::string, std::string> fields;
  std::istringstream lines(Read(path));
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const size_t value = line.find_first_not_of(" \t", colon + 1);
    fields[line.substr(0, colon)] = value == std::string::npos ? "" : line.substr(value);
  }
  return fields;
}

// After "pid (name) ": the name may hold anything.
std::vector<std::string> StatWords(const std::string& path) {
  const std::string text = Read(path);
  return Words(text.substr(text.rfind(')') + 2));
}

std::string Link(const std::string& path) {
  char target[4096] = {};
  const ssize_t length = readlink(path.c_str(), target, sizeof(target) - 1);
  return length < 0 ? "errno " + std::to_string(errno)
                    : std::string(target, static_cast<size_t>(length));
}

}  // namespace

TEST_CASE("stat has 52 fields, with the ids where ps looks", "[proc]") {
  const std::string text = Read("/proc/self/stat");
  CHECK(text.rfind(std::to_string(getpid()) + " (", 0) == 0);
  const std::vector<std::string> words = StatWords("/proc/self/stat");
  REQUIRE(words.size() == 50);
  CHECK(words[0] == "R");
  CHECK(words[1] == std::to_string(getppid()));
  CHECK(words[2] == std::to_string(getpgrp()));
  CHECK(words[3] == std::to_string(getsid(0)));
  CHECK(std::stoi(words[17]) == 1);         // Threads.
  CHECK(std::stoull(words[20]) > 1000000);  // Virtual size.
  CHECK(std::stoull(words[21]) > 10);       // Resident pages.
  const auto stack = reinterpret_cast<uint64_t>(&words);
  CHECK(std::stoull(words[25]) > stack);  // Start of the stack.
  CHECK(std::stoull(words[25]) < stack + (uint64_t{8} << 20));
}

TEST_CASE("a name with brackets and spaces is shown as it is", "[proc]") {
  char old[16] = {};
  prctl(PR_GET_NAME, old);
  REQUIRE(prctl(PR_SET_NAME, "a) R (b") == 0);
  CHECK(Read("/proc/self/stat").find(" (a) R (b) R ") != std::string::npos);
  CHECK(Read("/proc/self/comm") == "a) R (b\n");
  CHECK(Fields("/proc/self/status")["Name"] == "a) R (b");
  std::ofstream("/proc/self/comm") << "other";
  CHECK(Read("/proc/self/comm") == "other\n");
  prctl(PR_SET_NAME, old);
}

TEST_CASE("status agrees with the system calls", "[proc]") {
  auto fields = Fields("/proc/self/status");
  CHECK(fields["State"] == "R (running)");
  CHECK(fields["Tgid"] == std::to_string(getpid()));
  CHECK(fields["Pid"] == std::to_string(getpid()));
  CHECK(fields["PPid"] == std::to_string(getppid()));
  CHECK(fields["TracerPid"] == "0");
  CHECK(Words(fields["Uid"]) == std::vector<std::string>(4, std::to_string(geteuid())));
  CHECK(fields["Threads"] == "1");
  for (const char* name : {"FDSize",
                           "Groups",
                           "NSpid",
                           "VmPeak",
                           "VmSize",
                           "VmHWM",
                           "VmRSS",
                           "VmData",
                           "VmStk",
                           "VmExe",
                           "VmLib",
                           "VmSwap",
                           "SigQ",
                           "SigPnd",
                           "SigBlk",
                           "SigIgn",
                           "SigCgt",
                           "CapInh",
                           "CapEff",
                           "NoNewPrivs",
                           "Seccomp",
                           "Cpus_allowed",
                           "Cpus_allowed_list",
                           "Mems_allowed_list",
                           "voluntary_ctxt_switches",
                           "nonvoluntary_ctxt_switches"}) {
    CAPTURE(name);
    CHECK(fields.count(name) == 1);
  }
  CHECK(Words(fields["VmRSS"])[1] == "kB");
  CHECK(fields["SigBlk"].size() == 16);
}

TEST_CASE("command line and environment are the program's", "[proc]") {
  const std::string line = Read("/proc/self/cmdline");
  REQUIRE(!line.empty());
  CHECK(line.back() == '\0');
  const int child = fork();
  if (child == 0) {
    char* const argv[] = {
        const_cast<char*>("sh"), const_cast<char*>("-c"),
        const_cast<char*>("tr '\\0' '|' </proc/$$/cmdline | grep -qF 'a b' && "
                          "cat /proc/self/environ | tr '\\0' '\\n' | grep -qx 'PROC_TEST=yes'"),
        const_cast<char*>("a b"), nullptr};
    char* const envp[] = {const_cast<char*>("PROC_TEST=yes"),
                          const_cast<char*>("PATH=/usr/bin:/bin"), nullptr};
    execve("/bin/sh", argv, envp);
    _exit(99);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("maps has the program, the stack and what was mapped", "[proc]") {
  void* at = mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  char wanted[64];
  snprintf(wanted, sizeof(wanted), "%08lx-", reinterpret_cast<unsigned long>(at));
  std::istringstream lines(Read("/proc/self/maps"));
  bool exe = false, stack = false, vdso = false, mapped = false;
  uint64_t last_end = 0;
  for (std::string line; std::getline(lines, line);) {
    unsigned long start = 0, end = 0, offset = 0, inode = 0;
    char rights[5] = {}, device[16] = {};
    CAPTURE(line);
    REQUIRE(sscanf(line.c_str(), "%lx-%lx %4s %lx %15s %lu", &start, &end, rights, &offset, device,
                   &inode) == 6);
    CHECK(start < end);
    CHECK(start >= last_end);
    last_end = end;
    if (line.size() > 73) CHECK(line[72] == ' ');  // Names begin at column 74.
    exe = exe || line.ends_with(Link("/proc/self/exe"));
    stack = stack || line.ends_with("[stack]");
    vdso = vdso || line.ends_with("[vdso]");
    const auto address = reinterpret_cast<unsigned long>(at);
    mapped = mapped || (start <= address && address < end && std::strcmp(rights, "r--p") == 0);
  }
  CHECK(exe);
  CHECK(stack);
  CHECK(vdso);
  CHECK(mapped);
  munmap(at, 8192);
  CHECK(Read("/proc/self/smaps").find("Private_Dirty:") != std::string::npos);
  CHECK(Fields("/proc/self/smaps_rollup").count("Pss") == 1);
  CHECK(Words(Read("/proc/self/statm")).size() == 7);
}

TEST_CASE("links lead where the process is", "[proc]") {
  CHECK(Link("/proc/self") == std::to_string(getpid()));
  CHECK(Link("/proc/self/cwd") == std::filesystem::current_path());
  CHECK(Link("/proc/self/root") == "/");
  CHECK(Link("/proc/thread-self") ==
        std::to_string(getpid()) + "/task/" + std::to_string(syscall(SYS_gettid)));
  CHECK(Link("/proc/mounts") == "self/mounts");
  CHECK(Link("/proc/self/ns/pid").rfind("pid:[", 0) == 0);
}

TEST_CASE("descriptors are listed, with targets and positions", "[proc]") {
  char path[] = "/tmp/ravelin-proc-XXXXXX";
  const int fd = mkstemp(path);
  REQUIRE(fd >= 0);
  REQUIRE(write(fd, "12345", 5) == 5);
  const std::string number = std::to_string(fd);
  CHECK(Link("/proc/self/fd/" + number) == path);
  auto info = Fields("/proc/self/fdinfo/" + number);
  CHECK(info["pos"] == "5");
  CHECK(std::stoul(info["flags"], nullptr, 8) == static_cast<unsigned long>(fcntl(fd, F_GETFL)));
  CHECK(Read("/proc/self/fd/" + number) == "12345");  // Opened anew, from the start.
  unlink(path);
  CHECK(Link("/proc/self/fd/" + number) == std::string(path) + " (deleted)");
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd"))
    names.insert(entry.path().filename());
  CHECK(names.count(number) == 1);
  close(fd);
  int fds[2];
  REQUIRE(pipe(fds) == 0);
  CHECK(Link("/proc/self/fd/" + std::to_string(fds[0])).rfind("pipe:[", 0) == 0);
  close(fds[0]);
  close(fds[1]);
  CHECK(Link("/proc/self/fd/" + std::to_string(fds[0])) == "errno " + std::to_string(ENOENT));
}

TEST_CASE("threads have directories of their own", "[proc][thread]") {
  std::atomic<int> tid{0};
  std::atomic<bool> stop{false};
  std::thread other([&] {
    prctl(PR_SET_NAME, "the other");
    tid = static_cast<int>(syscall(SYS_gettid));
    while (!stop) usleep(1000);
  });
  while (tid == 0) usleep(1000);
  const std::string directory = "/proc/self/task/" + std::to_string(tid);
  CHECK(Read(directory + "/comm") == "the other\n");
  CHECK(Fields(directory + "/status")["Tgid"] == std::to_string(getpid()));
  CHECK(Fields("/proc/self/status")["Threads"] == "2");
  CHECK(access(("/proc/" + std::to_string(tid) + "/stat").c_str(), R_OK) == 0);
  size_t threads = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
    (void)entry;
    ++threads;
  }
  CHECK(threads == 2);
  struct stat status{};
  REQUIRE(stat("/proc/self/task", &status) == 0);
  CHECK(status.st_nlink == 4);
  stop = true;
  other.join();
}

TEST_CASE("a zombie is shown until it is waited for", "[proc]") {
  const pid_t child = fork();
  if (child == 0) _exit(0);
  siginfo_t info{};
  REQUIRE(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT) == 0);
  const std::string directory = "/proc/" + std::to_string(child);
  CHECK(StatWords(directory + "/stat")[0] == "Z");
  CHECK(Read(directory + "/cmdline").empty());
  CHECK(Link(directory + "/exe") == "errno " + std::to_string(ENOENT));
  const int held = open((directory + "/stat").c_str(), O_RDONLY);
  REQUIRE(held >= 0);
  REQUIRE(waitpid(child, nullptr, 0) == child);
  char byte = 0;
  CHECK(read(held, &byte, 1) == -1);
  CHECK(errno == ESRCH);
  close(held);
  CHECK(access(directory.c_str(), F_OK) == -1);
  CHECK(errno == ENOENT);
}

TEST_CASE("the system's files have what free, top and runtimes take from them", "[proc]") {
  auto memory = Fields("/proc/meminfo");
  for (const char* name : {"MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapTotal",
                           "SwapFree", "Shmem", "SReclaimable"}) {
    CAPTURE(name);
    REQUIRE(memory.count(name) == 1);
    CHECK(memory[name].ends_with(" kB"));
  }
  struct sysinfo system{};
  REQUIRE(sysinfo(&system) == 0);
  const uint64_t total_kib = uint64_t{system.totalram} * system.mem_unit / 1024;
  CHECK(std::stoull(memory["MemTotal"]) == total_kib);
  const std::string stat = Read("/proc/stat");
  CHECK(stat.rfind("cpu  ", 0) == 0);
  CHECK(stat.find("\ncpu0 ") != std::string::npos);
  CHECK(stat.find("\nbtime ") != std::string::npos);
  CHECK(stat.find("\nprocs_running ") != std::string::npos);
  CHECK(Words(stat.substr(0, stat.find('\n'))).size() == 11);
  const std::string cpu = Read("/proc/cpuinfo");
  long processors = 0;
  for (size_t at = cpu.find("processor\t:"); at != std::string::npos;
       at = cpu.find("processor\t:", at + 1))
    ++processors;
  CHECK(processors == sysconf(_SC_NPROCESSORS_ONLN));
  CHECK(cpu.find("\nflags\t\t:") != std::string::npos);
  CHECK(Words(Read("/proc/loadavg")).size() == 5);
  CHECK(Words(Read("/proc/uptime")).size() == 2);
  CHECK(Read("/proc/version").rfind("Linux version ", 0) == 0);
  CHECK(Read("/proc/filesystems").find("nodev\tproc\n") != std::string::npos);
  CHECK(!Read("/proc/self/mountinfo").empty());
  CHECK(Read("/proc/self/mounts").find(" /proc proc ") != std::string::npos);
  CHECK(Read("/proc/self/limits").find("Max open files") != std::string::npos);
  CHECK(Read("/proc/self/cgroup").find(':') != std::string::npos);
}

TEST_CASE("settings below /proc/sys are numbers in lines", "[proc]") {
  for (const char* name :
       {"kernel/pid_max", "kernel/threads-max", "vm/overcommit_memory", "vm/max_map_count",
        "fs/file-max", "fs/nr_open", "net/core/somaxconn", "kernel/randomize_va_space",
        "kernel/cap_last_cap", "kernel/ngroups_max", "fs/pipe-max-size", "vm/mmap_min_addr"}) {
    CAPTURE(name);
    const std::string text = Read(std::string("/proc/sys/") + name);
    CHECK(text.back() == '\n');
    CHECK(std::isdigit(text.front()));
  }
  CHECK(Read("/proc/sys/kernel/ostype") == "Linux\n");
  CHECK(Read("/proc/sys/kernel/random/uuid").size() == 37);
  CHECK(Read("/proc/sys/kernel/random/uuid") != Read("/proc/sys/kernel/random/uuid"));
  CHECK(Read("/proc/sys/kernel/random/boot_id") == Read("/proc/sys/kernel/random/boot_id"));
}

TEST_CASE("files of /proc are read in pieces and from anywhere", "[proc]") {
  const int fd = open("/proc/self/status", O_RDONLY);
  REQUIRE(fd >= 0);
  std::string pieces;
  char byte = 0;
  while (read(fd, &byte, 1) == 1) pieces += byte;
  CHECK(pieces.find("\nPid:\t" + std::to_string(getpid()) + "\n") != std::string::npos);
  REQUIRE(lseek(fd, 0, SEEK_SET) == 0);
  CHECK(pread(fd, &byte, 1, 4) == 1);
  CHECK(byte == ':');
  struct stat status{};
  REQUIRE(fstat(fd, &status) == 0);
  CHECK(status.st_size == 0);
  CHECK(write(fd, "x", 1) == -1);
  CHECK(errno == EBADF);
  close(fd);
  CHECK(open("/proc/self/status", O_CREAT | O_EXCL | O_RDWR, 0600) == -1);
  CHECK(errno == EEXIST);
  CHECK(open("/proc/not-there", O_CREAT | O_RDWR, 0600) == -1);
  CHECK(mkdir("/proc/not-there", 0700) == -1);
  CHECK(unlink("/proc/uptime") == -1);
}

TEST_CASE("memory is read and written through /proc/PID/mem", "[proc]") {
  const int fd = open("/proc/self/mem", O_RDWR);
  REQUIRE(fd >= 0);
  volatile int value = 41;
  const auto address = static_cast<off_t>(reinterpret_cast<uintptr_t>(&value));
  int got = 0;
  CHECK(pread(fd, &got, sizeof(got), address) == sizeof(got));
  CHECK(got == 41);
  got = 42;
  CHECK(pwrite(fd, &got, sizeof(got), address) == sizeof(got));
  CHECK(value == 42);
  CHECK(pread(fd, &got, sizeof(got), 0) == -1);
  CHECK(errno == EIO);
  close(fd);
}

TEST_CASE("another user's process keeps its secrets", "[proc][cred]") {
  if (geteuid() != 0) return;
  const pid_t child = fork();
  if (child == 0) {
    if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0) _exit(90);
    const std::string other = "/proc/" + std::to_string(getppid());
    if (open((other + "/mem").c_str(), O_RDONLY) != -1 || errno != EACCES) _exit(1);
    if (open((other + "/environ").c_str(), O_RDONLY) != -1 || errno != EACCES) _exit(2);
    char target[64];
    if (readlink((other + "/exe").c_str(), target, sizeof(target)) != -1 || errno != EACCES)
      _exit(3);
    if (open((other + "/fd").c_str(), O_RDONLY | O_DIRECTORY) != -1 || errno != EACCES) _exit(4);
    if (open((other + "/stat").c_str(), O_RDONLY) < 0) _exit(5);
    if (open((other + "/cmdline").c_str(), O_RDONLY) < 0) _exit(6);
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
