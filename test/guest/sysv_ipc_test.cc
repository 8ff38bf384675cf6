// System V shared memory, semaphores and messages (sysvipc(7)).

#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>

#include "catch2/catch.hpp"

namespace {

union SemArgument {
  int val;
  semid_ds* buf;
  unsigned short* array;
  seminfo* info;
};

struct Message {
  long type;
  char text[64];
};

// Removes what a test made, however it ends.
struct Segment {
  explicit Segment(size_t bytes) : id(shmget(IPC_PRIVATE, bytes, IPC_CREAT | 0600)) {
    REQUIRE(id >= 0);
  }
  ~Segment() { shmctl(id, IPC_RMID, nullptr); }
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  shmid_ds Stat() const {
    shmid_ds ds{};
    REQUIRE(shmctl(id, IPC_STAT, &ds) == 0);
    return ds;
  }
  const int id;
};

struct Semaphores {
  explicit Semaphores(int count) : id(semget(IPC_PRIVATE, count, IPC_CREAT | 0600)) {
    REQUIRE(id >= 0);
  }
  ~Semaphores() { semctl(id, 0, IPC_RMID); }
  Semaphores(const Semaphores&) = delete;
  Semaphores& operator=(const Semaphores&) = delete;
  int Value(int number) const { return semctl(id, number, GETVAL); }
  const int id;
};

struct Queue {
  Queue() : id(msgget(IPC_PRIVATE, IPC_CREAT | 0600)) { REQUIRE(id >= 0); }
  ~Queue() { msgctl(id, IPC_RMID, nullptr); }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  int Send(long type, const char* text, int flags = IPC_NOWAIT) const {
    Message message{type, {}};
    std::strncpy(message.text, text, sizeof(message.text) - 1);
    return msgsnd(id, &message, std::strlen(text) + 1, flags);
  }
  std::string Receive(long type, int flags = IPC_NOWAIT) const {
    Message message{};
    const ssize_t count = msgrcv(id, &message, sizeof(message.text), type, flags);
    return count < 0 ? "errno " + std::to_string(errno) : std::string(message.text);
  }
  const int id;
};

int Join(pid_t child) {
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status;
}

void* const kFailed = reinterpret_cast<void*>(-1);

}  // namespace

TEST_CASE("a segment is one memory for all who attach it", "[ipc][shm]") {
  const Segment segment(100000);
  auto* bytes = static_cast<char*>(shmat(segment.id, nullptr, 0));
  REQUIRE(bytes != kFailed);
  auto* again = static_cast<char*>(shmat(segment.id, nullptr, SHM_RDONLY));
  REQUIRE(again != kFailed);
  CHECK(segment.Stat().shm_nattch == 2);
  const pid_t child = fork();
  if (child == 0) {
    std::strcpy(bytes + 5000, "from the child");
    _exit(shmdt(bytes) == 0 ? 0 : 1);
  }
  CHECK(Join(child) == 0);
  CHECK(std::string(again + 5000) == "from the child");
  CHECK(segment.Stat().shm_nattch == 2);
  CHECK(segment.Stat().shm_lpid == child);
  CHECK(shmdt(bytes) == 0);
  CHECK(shmdt(bytes) == -1);
  CHECK(errno == EINVAL);
  CHECK(shmdt(again) == 0);
  CHECK(segment.Stat().shm_nattch == 0);
}

TEST_CASE("a removed segment lives until its last user has gone", "[ipc][shm]") {
  const int id = shmget(IPC_PRIVATE, 4096, 0600);
  REQUIRE(id >= 0);
  auto* bytes = static_cast<char*>(shmat(id, nullptr, 0));
  REQUIRE(bytes != kFailed);
  REQUIRE(shmctl(id, IPC_RMID, nullptr) == 0);
  shmid_ds ds{};
  REQUIRE(shmctl(id, IPC_STAT, &ds) == 0);
  CHECK((ds.shm_perm.mode & SHM_DEST) != 0);
  bytes[0] = 1;
  // The pieces count together.
  REQUIRE(munmap(bytes, 4096) == 0);
  CHECK(shmctl(id, IPC_STAT, &ds) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("where a segment is attached is checked", "[ipc][shm]") {
  const Segment segment(8192);
  auto* bytes = static_cast<char*>(shmat(segment.id, nullptr, 0));
  REQUIRE(bytes != kFailed);
  CHECK(shmat(segment.id, bytes, 0) == kFailed);
  CHECK(errno == EINVAL);
  CHECK(shmat(segment.id, bytes + 1, 0) == kFailed);
  CHECK(errno == EINVAL);
  CHECK(shmat(segment.id, bytes + 1, SHM_RND | SHM_REMAP) == bytes);
  CHECK(shmat(segment.id, nullptr, SHM_REMAP) == kFailed);
  CHECK(errno == EINVAL);
  CHECK(shmat(-1, nullptr, 0) == kFailed);
  CHECK(errno == EINVAL);
  CHECK(segment.Stat().shm_nattch == 1);
  CHECK(shmdt(bytes) == 0);
}

TEST_CASE("keys are found, and sizes and rights looked at", "[ipc][shm]") {
  const key_t key = 0x52410000 + getpid();
  const int id = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600);
  REQUIRE(id >= 0);
  CHECK(shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600) == -1);
  CHECK(errno == EEXIST);
  CHECK(shmget(key, 100, 0600) == id);
  CHECK(shmget(key, 8192, 0600) == -1);
  CHECK(errno == EINVAL);
  REQUIRE(shmctl(id, IPC_RMID, nullptr) == 0);
  CHECK(shmget(key, 4096, 0600) == -1);
  CHECK(errno == ENOENT);
  CHECK(shmget(IPC_PRIVATE, 0, 0600) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("/proc/sysvipc/shm shows a segment", "[ipc][shm][proc]") {
  const Segment segment(12345);
  std::ifstream in("/proc/sysvipc/shm");
  std::string line;
  bool found = false;
  while (std::getline(in, line)) {
    if (line.find(" " + std::to_string(segment.id) + " ") != std::string::npos &&
        line.find(" 12345 ") != std::string::npos)
      found = true;
  }
  CHECK(found);
}

TEST_CASE("operations on a set are done all or not at all", "[ipc][sem]") {
  const Semaphores set(3);
  sembuf up[] = {{0, 2, 0}, {2, 5, 0}};
  REQUIRE(semop(set.id, up, 2) == 0);
  sembuf mixed[] = {{0, -1, 0}, {1, -1, IPC_NOWAIT}};
  CHECK(semop(set.id, mixed, 2) == -1);
  CHECK(errno == EAGAIN);
  CHECK(set.Value(0) == 2);
  unsigned short values[3] = {};
  SemArgument argument{};
  argument.array = values;
  REQUIRE(semctl(set.id, 0, GETALL, argument) == 0);
  CHECK(values[2] == 5);
  CHECK(semctl(set.id, 0, GETPID) == getpid());
  sembuf beyond{3, 1, 0};
  CHECK(semop(set.id, &beyond, 1) == -1);
  CHECK(errno == EFBIG);
  sembuf overflow{0, 32767, 0};
  CHECK(semop(set.id, &overflow, 1) == -1);
  CHECK(errno == ERANGE);
  CHECK(semop(set.id, up, 0) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("SEM_UNDO gives back what a process took", "[ipc][sem]") {
  const Semaphores set(1);
  SemArgument one{};
  one.val = 1;
  REQUIRE(semctl(set.id, 0, SETVAL, one) == 0);
  const pid_t child = fork();
  if (child == 0) {
    sembuf take{0, -1, SEM_UNDO};
    _exit(semop(set.id, &take, 1) == 0 && semctl(set.id, 0, GETVAL) == 0 ? 0 : 1);
  }
  CHECK(Join(child) == 0);
  CHECK(set.Value(0) == 1);
}

TEST_CASE("a sleeper is counted, woken, interrupted, timed out and told of removal", "[ipc][sem]") {
  const Semaphores set(1);
  const pid_t child = fork();
  if (child == 0) {
    sembuf take{0, -1, 0};
    _exit(semop(set.id, &take, 1) == 0 ? 0 : 1);
  }
  while (semctl(set.id, 0, GETNCNT) != 1) usleep(1000);
  CHECK(semctl(set.id, 0, GETZCNT) == 0);
  sembuf give{0, 1, 0};
  REQUIRE(semop(set.id, &give, 1) == 0);
  CHECK(Join(child) == 0);
  CHECK(semctl(set.id, 0, GETNCNT) == 0);

  sembuf take{0, -1, 0};
  const timespec soon{0, 20'000'000};
  CHECK(semtimedop(set.id, &take, 1, &soon) == -1);
  CHECK(errno == EAGAIN);

  const pid_t doomed = fork();
  if (doomed == 0) {
    _exit(semop(set.id, &take, 1) == -1 && errno == EIDRM ? 0 : 1);
  }
  while (semctl(set.id, 0, GETNCNT) != 1) usleep(1000);
  REQUIRE(semctl(set.id, 0, IPC_RMID) == 0);
  CHECK(Join(doomed) == 0);
}

TEST_CASE("messages come by type, in order", "[ipc][msg]") {
  const Queue queue;
  REQUIRE(queue.Send(3, "three") == 0);
  REQUIRE(queue.Send(1, "one") == 0);
  REQUIRE(queue.Send(2, "two") == 0);
  REQUIRE(queue.Send(1, "uno") == 0);
  CHECK(queue.Receive(2) == "two");
  CHECK(queue.Receive(-2) == "one");
  CHECK(queue.Receive(0) == "three");
  CHECK(queue.Receive(9) == "errno " + std::to_string(ENOMSG));
  Message small{};
  CHECK(msgrcv(queue.id, &small, 2, 0, IPC_NOWAIT) == -1);
  CHECK(errno == E2BIG);
  CHECK(msgrcv(queue.id, &small, 2, 0, IPC_NOWAIT | MSG_NOERROR) == 2);
  CHECK(small.text[1] == 'n');
  msqid_ds ds{};
  REQUIRE(msgctl(queue.id, IPC_STAT, &ds) == 0);
  CHECK(ds.msg_qnum == 0);
  CHECK(ds.msg_lspid == getpid());
  CHECK(queue.Send(0, "no type") == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("a full queue makes the sender wait", "[ipc][msg]") {
  const Queue queue;
  msqid_ds ds{};
  REQUIRE(msgctl(queue.id, IPC_STAT, &ds) == 0);
  ds.msg_qbytes = 8;
  REQUIRE(msgctl(queue.id, IPC_SET, &ds) == 0);
  REQUIRE(queue.Send(1, "seven..") == 0);
  CHECK(queue.Send(1, "x") == -1);
  CHECK(errno == EAGAIN);
  const pid_t child = fork();
  if (child == 0) _exit(queue.Send(7, "later", 0) == 0 ? 0 : 1);
  usleep(20'000);
  CHECK(queue.Receive(1, 0) == "seven..");
  CHECK(queue.Receive(7, 0) == "later");
  CHECK(Join(child) == 0);
}

TEST_CASE("a receiver is interrupted by a handler, whatever SA_RESTART says", "[ipc][msg]") {
  const Queue queue;
  struct sigaction action{};
  action.sa_handler = [](int) {};
  action.sa_flags = SA_RESTART;
  REQUIRE(sigaction(SIGALRM, &action, nullptr) == 0);
  ualarm(20'000, 0);
  CHECK(queue.Receive(1, 0) == "errno " + std::to_string(EINTR));
}
