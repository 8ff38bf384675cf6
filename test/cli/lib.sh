# For the scripts beside it: checks that count, and a look at what is left behind.
runsc=$1
failures=0
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ravelin-cli-test.XXXXXX")
chmod 755 "$scratch"
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "FAILED: $*" >&2
  failures=$((failures + 1))
}

# As somebody who is not root; where the script is not run by root, as oneself.
unprivileged() {
  if [ "$(id -u)" = 0 ]; then
    setpriv --reuid=65533 --regid=65533 --clear-groups -- "$@"
  else
    "$@"
  fi
}

# refused WHAT PATTERN COMMAND...: exit status 125, one line on standard error that matches.
refused() { refused_with 125 "$@"; }

# refused_with STATUS WHAT PATTERN COMMAND...
refused_with() {
  local want=$1 what=$2 pattern=$3 status=0
  shift 3
  "$@" >"$scratch/out" 2>"$scratch/err" </dev/null || status=$?
  [ $status -eq "$want" ] || fail "$what: status $status, not $want"
  [ "$(wc -l <"$scratch/err")" -eq 1 ] || fail "$what: not one line: $(cat "$scratch/err")"
  grep -qE -- "$pattern" "$scratch/err" || fail "$what: '$(cat "$scratch/err")' lacks '$pattern'"
  [ ! -s "$scratch/out" ] || fail "$what: wrote to standard output"
}

# Processes of sandboxes of this build: those that execute one of its files (stubs are forks of the sentry).
# Others may be testing on the same machine.
binaries=$(stat -Lc '%d:%i' "$(dirname "$runsc")"/runsc{,-sentry,-gofer,-network})
processes() {
  local pid name state
  ps -eo pid,comm,stat --no-headers | while read -r pid name state; do
    case $name$state in
      *Z*) continue ;;
      runsc*|ravelin*) ;;
      *) continue ;;
    esac
    if grep -qxF "$(stat -Lc '%d:%i' "/proc/$pid/exe" 2>/dev/null)" <<<"$binaries"; then echo "$pid $name"; fi
  done
}

# snapshot FILE: processes, mounts and temporary files as they are now.
snapshot() {
  { processes; cat /proc/self/mounts; find /tmp /dev/shm -maxdepth 1 ! -path "$scratch*" \
      \( -name '*runsc*' -o -name '*ravelin*' \) 2>/dev/null | grep -v ravelin-cli-test | sort; } >"$1"
}

# clean WHAT: as at the last `snapshot $scratch/before`; processes get two seconds to go.
clean() {
  local i
  for i in $(seq 20); do
    snapshot "$scratch/after"
    cmp -s "$scratch/before" "$scratch/after" && return 0
    sleep 0.1
  done
  fail "$1 left something behind: $(diff "$scratch/before" "$scratch/after")"
}

finish() {
  if [ $failures -ne 0 ]; then
    echo "$failures checks failed" >&2
    exit 1
  fi
  echo "ok"
}
