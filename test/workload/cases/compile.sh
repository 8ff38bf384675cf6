# gcc and g++ on sources of this project, make -j4, a shared library, -O2 and -flto.
set -eu
command -v g++ >/dev/null || { echo "no g++" >&2; exit 77; }
cat >main.cc <<'EOF'
#include <cstdio>
#include <regex>
#include "platform/base/result.h"
base::Result<int> Half(int v) { if (v % 2) return base::Errno(EINVAL); return v / 2; }
int main() { std::printf("%d %d %d\n", Half(4).value(), Half(3).error().value(), std::regex_match("abc", std::regex("a.c"))); }
EOF
g++ -std=gnu++20 -O1 -I"$SOURCE" main.cc "$SOURCE/platform/base/log.cc" -o main
./main
for i in 1 2 3 4 5 6; do echo "int f$i(int x) { return x * $i; }" >f$i.c; done
cat >Makefile <<'EOF'
objects := $(patsubst %.c,%.o,$(wildcard f*.c))
lib.so: $(objects)
	gcc -shared -o $@ $^
%.o: %.c
	gcc -O2 -fPIC -c $< -o $@
EOF
make -s -j4; nm -D lib.so | awk '/ T f/{print $3}'
echo 'int f3(int); int main(){return f3(2);}' >use.c; gcc use.c ./lib.so -o use; ./use || echo "status $?"
gcc -O2 -static -x c - -o static <<<'#include <stdio.h>
int main(){puts("static");}'; ./static
sha256sum f1.o use static | cut -c1-64
