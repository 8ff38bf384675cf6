# For the scripts beside it: daemons of one's own, in directories of one's own, gone at the end.
#
#   source lib.sh RUNSC     the runtime to test (an absolute path)
runsc=$1
failures=0
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ravelin-oci.XXXXXX")
chmod 755 "$scratch"
pids_started=()

fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

skip() {
  echo "SKIPPED: $*"
  exit 77
}

[ "$(id -u)" = 0 ] || skip "needs root"

# What was started is ended, the last first; then what it has mounted.
cleanup() {
  local pid mount
  if [ -S "$scratch/docker.sock" ]; then
    docker_ ps -aq 2>/dev/null | xargs -r "${docker[@]}" rm -f >/dev/null 2>&1
  fi
  for pid in $(printf '%s\n' "${pids_started[@]}" | tac); do kill "$pid" 2>/dev/null; done
  for pid in "${pids_started[@]}"; do
    for _ in $(seq 50); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -9 "$pid" 2>/dev/null
  done
  while read -r mount; do umount -l "$mount" 2>/dev/null; done < <(
    cut -d' ' -f5 /proc/self/mountinfo | grep "^$scratch" | sort -r)
  rm -rf "$scratch"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# A root file system with busybox in $1.
make_rootfs() {
  local root=$1 busybox
  busybox=$(command -v busybox) || skip "no busybox"
  file -L "$busybox" 2>/dev/null | grep -q dynamically && skip "busybox is not static: install busybox-static"
  mkdir -p "$root"/{bin,sbin,usr/bin,etc,proc,sys,dev,tmp,root,var,home}
  chmod 1777 "$root/tmp"
  cp "$busybox" "$root/bin/busybox"
  "$busybox" --list | grep -vx busybox | while read -r name; do ln -sf busybox "$root/bin/$name"; done
  printf 'root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home:/bin/sh\n' >"$root/etc/passwd"
  printf 'root:x:0:\nalice:x:1000:\n' >"$root/etc/group"
}

# dockerd with our runtime beside runc; "docker_" talks to it. Arguments are dockerd's.
start_docker() {
  local name
  for name in dockerd docker containerd iptables; do
    PATH=$PATH:/usr/sbin command -v $name >/dev/null || skip "no $name (packages: .ci/packages.sh, oci_packages)"
  done
  mkdir -p "$scratch/data"
  cat >"$scratch/daemon.json" <<JSON
{ "runtimes": { "runsc": { "path": "$runsc", "runtimeArgs": [${RUNSC_ARGS:-}] } } }
JSON
  PATH=$PATH:/usr/sbin:/sbin setsid dockerd --config-file "$scratch/daemon.json" \
    --data-root "$scratch/data" --exec-root "$scratch/exec" --pidfile "$scratch/docker.pid" \
    -H "unix://$scratch/docker.sock" --bip 172.31.199.1/24 --storage-driver "${DRIVER:-overlay2}" \
    "$@" >"$scratch/dockerd.log" 2>&1 </dev/null &
  pids_started+=($!)
  docker=(docker -H "unix://$scratch/docker.sock")
  for _ in $(seq 300); do
    docker_ info >/dev/null 2>&1 && return 0
    kill -0 "${pids_started[-1]}" 2>/dev/null || break
    sleep 0.1
  done
  tail -5 "$scratch/dockerd.log" >&2
  skip "dockerd does not start here"
}

docker_() { "${docker[@]}" "$@"; }

import_image() {
  make_rootfs "$scratch/image"
  tar -C "$scratch/image" -c . | docker_ import - "${1:-busybox}" >/dev/null || skip "docker import fails here"
}

# feature NAME EXPECTED COMMAND...: the output (both streams, lines joined by a blank) matches.
feature() {
  local name=$1 pattern=$2 out status=0
  shift 2
  out=$("$@" 2>&1 </dev/null) || status=$?
  out="${out//$'\n'/ } rc=$status"
  out=${out//$'\r'/}
  if grep -qE -- "$pattern" <<<"$out"; then
    echo "ok   $name"
  else
    printf 'FAIL %s\n       %s\n' "$name" "${out:0:300}"
    failures=$((failures + 1))
  fi
}

# With a terminal of the client's: script(1) makes one.
tty_() { timeout -s KILL 60 script -qec "stty rows 24 cols 100; $(printf '%q ' "$@")" /dev/null; }
