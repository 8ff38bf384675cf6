# A real configure && make && make check: GNU hello, from the package archive.
set -eu
command -v dpkg-source >/dev/null || { echo "no dpkg-source (apt-get install dpkg-dev)" >&2; exit 77; }
[ -d /var/cache/ravelin-test/hello ] || { echo "no sources of hello (test/workload/fetch)" >&2; exit 77; }
cp -r /var/cache/ravelin-test/hello hello
# Equal times: nothing that was generated for the release looks out of date.
find hello -type f -exec touch -d @1000000000 {} +
cd hello
./configure >configure.log 2>&1 || { tail -n 40 configure.log; exit 1; }
grep -c '^checking' configure.log
make -j2 >make.log 2>&1 || { tail -n 40 make.log; exit 1; }
./hello
sha256sum hello
make check >check.log 2>&1 || { tail -n 60 check.log; exit 1; }
grep -E '^# (TOTAL|PASS|FAIL|ERROR|XFAIL):' check.log
