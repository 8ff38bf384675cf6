// What a message to the gofer costs: server in a process of its own, one client thread.
//
//   gofer_bench [directory]
//
// "warm": the next request comes while the server still spins. "cold": it has gone to sleep.

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "gofer/protocol/client.h"
#include "test/bench/served_gofer.h"

namespace {

double NowUs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

// Median of five rounds.
void Measure(const char* what, int calls, const std::function<void()>& call, int pause_us = 0) {
  std::vector<double> rounds;
  for (int round = 0; round < 5; ++round) {
    double spent = 0;
    for (int i = 0; i < calls; ++i) {
      if (pause_us > 0) usleep(static_cast<useconds_t>(pause_us));
      const double start = pause_us > 0 || i == 0 ? NowUs() : 0;
      if (i == 0 && pause_us == 0) spent = -start;
      call();
      if (pause_us > 0) spent += NowUs() - start;
    }
    if (pause_us == 0) spent += NowUs();
    rounds.push_back(spent / calls);
  }
  std::sort(rounds.begin(), rounds.end());
  printf("%-40s %8.2f us\n", what, rounds[2]);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path = argc > 1 ? argv[1] : "/usr";
  auto ends = gofer::CreateChannel();
  if (!ends.ok()) return 1;
  const pid_t pid = fork();
  if (pid == 0) bench::ServeGofer(*std::move(ends), path, false);
  ends->server_socket.Reset();
  auto created = gofer::Client::Create(std::move(ends->memory), std::move(ends->client_socket));
  if (!created.ok()) return 1;
  gofer::Client& client = **created;
  const gofer::Fid root = client.NewFid();
  if (!client.Attach("root", root).ok()) return 1;

  client.set_stay_on_cpu([]() -> int {
    // As the sentry's threads do it, for the whole of a measurement.
    static const int cpu = [] {
      const int here = sched_getcpu();
      cpu_set_t one;
      CPU_ZERO(&one);
      CPU_SET(static_cast<size_t>(here), &one);
      return sched_setaffinity(0, sizeof(one), &one) == 0 ? here : gofer::Channel::kAnyCpu;
    }();
    return cpu;
  });
  Measure("getattr, same CPU", 20'000, [&] { (void)client.GetAttr(root); });
  Measure("getattr, same CPU, seldom", 500, [&] { (void)client.GetAttr(root); }, 1000);
  cpu_set_t all;
  CPU_ZERO(&all);
  for (size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) CPU_SET(cpu, &all);
  sched_setaffinity(0, sizeof(all), &all);
  client.set_stay_on_cpu(nullptr);
  Measure("getattr, warm", 20'000, [&] { (void)client.GetAttr(root); });
  Measure("getattr, cold", 500, [&] { (void)client.GetAttr(root); }, 1000);
  gofer::WalkRequest walk{root, {{"include", 0}, {"stdio.h", 0}}, false, 0};
  Measure("walk of 2 steps, warm", 20'000, [&] { (void)client.Walk(walk); });
  walk.open_last = true;
  Measure("walk of 2 steps and open, warm", 20'000, [&] { (void)client.Walk(walk); });
  walk.open_last = false;
  Measure("walk with a fid, and clunk, warm", 10'000, [&] {
    walk.steps[1].fid = client.NewFid();
    (void)client.Walk(walk);
    client.Forget(walk.steps[1].fid);
  });
  walk.steps = {{"include", client.NewFid()}};
  if (!client.Walk(walk).ok()) return 1;
  for (const bool with_attributes : {false, true}) {
    Measure(with_attributes ? "readdir with attributes, whole" : "readdir, whole", 500, [&] {
      gofer::ReadDirRequest request{walk.steps[0].fid, 0, gofer::kDirEntriesMax, with_attributes};
      for (bool end = false; !end;) {
        auto reply = client.ReadDir(request);
        if (!reply.ok()) abort();
        end = reply.value().end;
        if (!end) request.cookie = reply.value().entries.back().cookie;
      }
    });
  }
  Measure("native fstatat of 2 steps", 20'000, [&] {
    struct stat status;
    (void)fstatat(AT_FDCWD, "/usr/include/stdio.h", &status, 0);
  });
  Measure("native open and close of 2 steps", 20'000,
          [&] { close(open("/usr/include/stdio.h", O_RDONLY)); });
  created->reset();
  int status = 0;
  waitpid(pid, &status, 0);
  return status == 0 ? 0 : 1;
}
