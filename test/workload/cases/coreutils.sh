# The everyday tools on files of all types.
set -eu
mkdir -p a/b/c; echo text >a/b/file; ln -s ../b/file a/c-link; ln a/b/file a/hard
ls -lR --time-style=+ a | sed 's/ root / /g; /^total/d' | awk '{print $1, $2, $NF}'
stat -c '%F %a %h' a; stat -c '%F %a %h %s' a/b/file a/c-link
cp -a a copy; diff -r a copy && echo same
mv copy/b copy/d; find copy | sort
rm -rf copy; test ! -e copy && echo gone
dd if=/dev/zero of=zeros bs=4096 count=100 2>/dev/null; wc -c zeros; sha256sum zeros
truncate -s 1G sparse; stat -c '%s %b' sparse; rm sparse
head -c 100000 /dev/urandom >random; split -b 10000 random part.; cat part.* | cmp - random && echo joined
sort -R <(seq 1000) | sort -n | md5sum
touch -d '2001-02-03 04:05:06 UTC' old; stat -c %Y old
chmod 4755 old; stat -c %a old; chmod u-s old
install -D -m 640 old x/y/z; stat -c %a x/y/z
tee t1 t2 <a/b/file >/dev/null; cmp t1 t2 && echo tee
mktemp -d ./tmp.XXXXXX >/dev/null; ls -d tmp.* | wc -l
nohup true 2>/dev/null; nice -n 5 nice
date -u -d @86400 +%F; env | grep -c =
df . >/dev/null && echo df; du -s a >/dev/null && echo du
readlink -f a/c-link | sed "s,$WORK,W,"; realpath a/../a | sed "s,$WORK,W,"
tac a/b/file; nl a/b/file; od -c a/b/file; base64 a/b/file; expr 6 '*' 7; factor 1234567
id -u; whoami; tty || true; nproc >/dev/null && echo nproc; uname -sm
seq 3 | xargs -n1 -P3 echo | sort; seq 5 | shuf | sort; paste <(seq 3) <(seq 4 6); join <(seq 3) <(seq 2 4)
