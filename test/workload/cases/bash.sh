# Pipes, here documents, process substitution, traps, arrays, arithmetic, job control.
set -u
echo one two three | tr ' ' '\n' | sort | cat -n
cat <<EOF
here $((6 * 7))
EOF
diff <(printf 'a\nb\n') <(printf 'a\nc\n')
echo "diff gave $?"
trap 'echo "got USR1"' USR1
kill -USR1 $$
bash -c 'trap "echo leaving" EXIT; exit 4'; echo "trap kept $?"
(exit 7); echo "subshell $?"
sleep 0.05 & wait $!; echo "waited $?"
{ bash -c 'kill -TERM $$'; echo "killed $?" >&3; } 3>&1 2>/dev/null
{ bash -c 'kill -SEGV $$'; echo "segv $?" >&3; } 3>&1 2>/dev/null
mkfifo fifo; (echo through the fifo >fifo) & read -r line <fifo; echo "$line"; wait
coproc CAT { cat; }; echo hello >&"${CAT[1]}"; read -r line <&"${CAT[0]}"; echo "coproc $line"
exec {CAT[1]}>&-; wait
set -m
sleep 5 & kill -STOP %1; sleep 0.1; jobs | sed 's/ \+/ /g'; kill -CONT %1; kill %1; wait %1 2>/dev/null; echo "job $?"
set +m
ulimit -n 32; ulimit -n
for i in {1..50}; do (:); done; echo forked
seq 1 100000 | awk '{s += $1} END {print s}'
yes | head -n 3
declare -A map=([x]=1 [y]=2); echo "${!map[@]}" | tr ' ' '\n' | sort
printf '%s\n' "$BASH_VERSION" | cut -c1-1
umask; umask 027; touch f; stat -c %a f
cd /; pwd; cd - >/dev/null
time_out=$(timeout 0.2 sleep 5; echo $?); echo "timeout $time_out"
exec 9<>fifo; read -r -t 0.1 line <&9; echo "read timed out $(( $? > 128 ))"
