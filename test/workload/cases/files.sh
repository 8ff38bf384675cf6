# rsync, tar, find, grep over a large tree.
set -eu
find /usr/share/perl /usr/lib/gcc -xdev | sort | sha256sum
grep -r --include='*.h' -c define /usr/include/linux | sort | sha256sum
tar -C /usr/include -cf tree.tar linux asm-generic --sort=name --mtime=@0; tar tf tree.tar | wc -l; sha256sum tree.tar
mkdir out; tar -C out -xf tree.tar; diff -r out/linux /usr/include/linux && echo same
tar -C out -czf - linux | tar -tzf - | wc -l
command -v rsync >/dev/null && { rsync -a out/ copy/; rsync -ain --delete out/ copy/; diff -r out copy && echo rsynced; }
find out -name '*.h' -newermt 1980-01-01 -size +1k | wc -l
rm -rf out copy; ls
mkdir many; cd many; seq 1 20000 | xargs touch; ls | wc -l; find . -type f -delete; ls | wc -l
