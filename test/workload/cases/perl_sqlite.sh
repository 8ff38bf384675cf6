set -eu
perl -e 'my %h; $h{$_ % 7} += $_ for 1..1000; print "$_ $h{$_}\n" for sort keys %h; my $pid = fork // die; if (!$pid) { exit 5 } waitpid $pid, 0; print $? >> 8, "\n"; open my $p, "-|", "echo piped"; print <$p>; $SIG{ALRM} = sub { print "alarm\n" }; alarm 1; select undef, undef, undef, 3; print join(",", sort { $a <=> $b } map { $_ ** 2 } 1..5), "\n"'
command -v sqlite3 >/dev/null || { echo "no sqlite3" >&2; exit 77; }
sqlite3 test.db 'create table t(a integer primary key, b text); begin; with recursive n(x) as (select 1 union all select x+1 from n where x<20000) insert into t select x, hex(x*x) from n; commit; select count(*), sum(length(b)) from t; pragma integrity_check;'
sqlite3 test.db 'pragma journal_mode=wal; insert into t values(99999, "wal"); select * from t where a=99999;'
for i in 1 2 3 4; do sqlite3 -cmd '.timeout 5000' test.db "insert into t(b) values('c$i')" & done; wait
sqlite3 test.db "select b from t where b like 'c_' order by b"
