#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_install.sh - what `make install` puts down is enough to build on, and all that it promises.
#
# Idea: install into a folder of our own, forget the source tree, build a C and a C++ program with
# what pkg-config says, shared and static, and run them; look at the symbols; uninstall; look for
# what is left.
set -eu

root=$(mktemp -d) && trap 'rm -rf "$root"' EXIT
at=$root/opt/yoke
make=(make -s "PREFIX=$at" "BUILD=$BUILD" "CC=$CC")

fail() {
    echo "FAILED: $1"
    exit 1
}

"${make[@]}" install
export PKG_CONFIG_PATH=$at/lib/pkgconfig

cat >"$root/use.c" <<'END'
#include <stdio.h>
#include <string.h>
#include <yoke/yoke.h>

static int square(yoke_task *task, const void *in, void *out)
{
    const int x = *(const int *)in;
    (void)task;
    *(int *)out = x * x;
    return 0;
}

int main(void)
{
    const int in[3] = {1, 2, 3};
    int out[3] = {0, 0, 0};
    yoke_pool *pool;
    yoke_pool_config config;
    memset(&config, 0, sizeof config);
    config.size = sizeof config;
    config.kind = YOKE_PROCESSES;
    int rc = yoke_pool_create(&config, &pool);
    if (rc == 0)
        rc = yoke_map(pool, square, in, sizeof *in, out, sizeof *out, 3, NULL);
    if (rc == 0)
        rc = yoke_pool_destroy(pool, YOKE_FOREVER);
    printf("yoke %s: %d %d %d, %s\n", yoke_version(), out[0], out[1], out[2], yoke_strerror(rc));
    return rc != 0;
}
END
cp "$root/use.c" "$root/use.cc"

version=$(pkg-config --modversion yoke)
[ "$("$at/bin/yoke" --version)" = "yoke $version" ] || fail 'yoke --version is not that of yoke.pc'

# Word splitting is wanted: these are lists of options.
try() { # name, options of pkg-config, compiler, options, source
    local name=$1 query=$2 said && shift 2
    # shellcheck disable=SC2046
    "$@" -Wall -Wextra -Werror -o "$root/$name" $(pkg-config --cflags --libs $query yoke)
    said=$(LD_LIBRARY_PATH=$at/lib "$root/$name" 2>&1) || said="$said (exit code $?)"
    [ "$said" = "yoke $version: 1 4 9, success" ] || fail "the $name program said: $said"
}
try c-shared '' "$CC" -std=c11 "$root/use.c"
try c-static --static "$CC" -std=c11 -static "$root/use.c"
if command -v g++ >/dev/null; then
    try c++-shared '' g++ -std=c++17 "$root/use.cc"
    try c++-static --static g++ -std=c++17 -static "$root/use.cc"
else
    echo 'no g++ here: C++ was not tried'
fi
readelf -d "$root/c-shared" | grep -q 'NEEDED.*libyoke.so.0' || fail 'not linked by its soname'

so=$at/lib/libyoke.so
others=$(nm -D --defined-only --format=posix "$so" | awk '$2 != "A" { print $1 }' | grep -v '^yoke_') &&
    fail "exported, but no promise: $others"
# Each function that the headers declare is there.
sed -n 's/^YOKE_API.*[ *]\(yoke_[a-z0-9_]*\)(.*/\1/p' "$at"/include/yoke/*.h | sort -u >"$root/declared"
nm -D --defined-only --format=posix "$so" | sed -n 's/^\(yoke_[a-z0-9_]*\)@.*/\1/p' | sort -u >"$root/exported"
[ -s "$root/declared" ] || fail 'no declarations found in the headers'
diff "$root/declared" "$root/exported" || fail 'declared and exported differ'
while read -r call; do
    page=$at/share/man/man3/$call.3
    [ -s "$page" ] && [ -s "$at/share/man/$(sed -n 's/^\.so //p' "$page")" ] || fail "no manual page of $call"
done <"$root/declared"
needed=$(readelf -d "$so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -v '^libc\.so\|^ld-linux') &&
    fail "needs more than libc: $needed"

"${make[@]}" uninstall
left=$(find "$root/opt" ! -type d -o -name yoke -path '*/include/*')
[ -z "$left" ] || fail "uninstall left: $left"
