#pragma once

// What the System V IPC calls exchange with the guest, as on x86-64 (linux/ipc.h and friends).

#include <cstdint>

namespace syscalls::abi {

inline constexpr int32_t kIpcRmid = 0, kIpcSet = 1, kIpcStat = 2, kIpcInfo = 3;

struct Ipc64Perm {
  int32_t key;
  uint32_t uid, gid, cuid, cgid;
  uint32_t mode;
  uint16_t seq;
  uint16_t pad;
  uint32_t pad2;
  uint64_t unused[2];
};
static_assert(sizeof(Ipc64Perm) == 48);

// --- Shared memory.
inline constexpr int32_t kShmLock = 11, kShmUnlock = 12, kShmStat = 13, kShmInfo = 14,
                         kShmStatAny = 15;
struct Shmid64Ds {
  Ipc64Perm perm;
  uint64_t segsz;
  int64_t atime, dtime, ctime;
  int32_t cpid, lpid;
  uint64_t nattch;
  uint64_t unused[2];
};
static_assert(sizeof(Shmid64Ds) == 112);

struct Shminfo64 {
  uint64_t shmmax, shmmin, shmmni, shmseg, shmall;
  uint64_t unused[4];
};

struct ShmInfo {
  int32_t used_ids;
  int32_t pad;
  uint64_t shm_tot, shm_rss, shm_swp, swap_attempts, swap_successes;
};

// --- Semaphores.
inline constexpr int32_t kGetPid = 11, kGetVal = 12, kGetAll = 13, kGetNcnt = 14, kGetZcnt = 15,
                         kSetVal = 16, kSetAll = 17, kSemStat = 18, kSemInfo = 19, kSemStatAny = 20;
struct Semid64Ds {
  Ipc64Perm perm;
  int64_t otime, unused1, ctime, unused2;
  uint64_t nsems;
  uint64_t unused[2];
};
static_assert(sizeof(Semid64Ds) == 104);

struct Seminfo {
  int32_t semmap, semmni, semmns, semmnu, semmsl, semopm, semume, semusz, semvmx, semaem;
};

// --- Messages.
inline constexpr int32_t kMsgStat = 11, kMsgInfo = 12, kMsgStatAny = 13;
struct Msqid64Ds {
  Ipc64Perm perm;
  int64_t stime, rtime, ctime;
  uint64_t cbytes, qnum, qbytes;
  int32_t lspid, lrpid;
  uint64_t unused[2];
};
static_assert(sizeof(Msqid64Ds) == 120);

struct Msginfo {
  int32_t msgpool, msgmap, msgmax, msgmnb, msgmni, msgssz, msgtql;
  uint16_t msgseg;
  uint16_t pad;
};

}  // namespace syscalls::abi
