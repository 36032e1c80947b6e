#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# check.sh - all that must hold before a change goes in: one line for each step, then the count.
#
# Idea: a step is a function here, or a target of the Makefile; what it says is shown only when it
# fails. ONLY and SKIP pick steps by name. Called by `make check`.
set -u -o pipefail

make="${MAKE:-make} ONLY= SKIP="
logs=build/check
passed=0 failed=0

mapfile -t files < <(find include src cli examples tests bench python -name '*.[ch]' | sort)

format() {
    clang-format --dry-run -Werror "${files[@]}"
}

python_include() {
    /usr/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("include"))'
}

tidy() {
    find src cli python/src -name '*.c' -print0 | sort -z |
        xargs -0 -P "$(nproc)" -I FILE clang-tidy --quiet FILE -- \
            -std=c11 -D_GNU_SOURCE -DYK_DEBUG -Iinclude -Isrc -isystem "$(python_include)" 2>&1 |
        { grep -v '^[0-9]* warnings* generated' || true; }
}

rooms() {
    python3 tools/check_rooms.py .
}

sync() {
    python3 tools/check_sync.py src python/src
}

banned() {
    python3 tools/check_banned.py .
}

# Each public header by itself, as strictly as users may ask for it.
headers() {
    local header how bad=0
    local strict='-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fsyntax-only -Iinclude'
    for header in include/yoke/*.h; do
        for how in 'gcc -std=c11 -xc' 'gcc -std=c17 -xc' 'clang -std=c11 -xc' 'clang -std=c17 -xc' \
            'g++ -std=c++17 -xc++' 'clang++ -std=c++17 -xc++'; do
            echo "#include <${header#include/}>" | $how $strict - && continue
            echo "$header: not clean with $how"
            bad=1
        done
    done
    return $bad
}

gcc_build() {
    $make everything CC=gcc
}

clang_build() {
    $make everything CC=clang BUILD=build/clang
}

debug_build() {
    $make everything DEBUG=1 BUILD=build/debug
}

tests() {
    $make test
}

asan() {
    $make asan
}

tsan() {
    $make tsan
}

# 10^6 inputs, then the bugs that they have to find: what was not found proves nothing else.
fuzz() {
    $make fuzz && $make fuzz_planted
}

models() {
    $make models
}

arm() {
    $make arm
}

# Without those that take minutes and ask the system more than the interpreter; by hand all of them:
# make test-python-3.13.
python_313() {
    JOBS=3 tools/python-chroot.sh trixie 3.13 $(find tests/python -maxdepth 1 -name 'test_*.py' |
        grep -vE 'test_(faults_pool|hosts|demo|docs|migration)\.py' | sort)
}

python_asan() {
    JOBS=3 $make python-asan
}

# The stubs by themselves, as mypy sees them; then what is installed is what they say.
stubs() {
    local only=build/stubs
    rm -rf $only && mkdir -p $only/yoke && cp python/yoke/*.pyi python/yoke/py.typed $only/yoke/
    $make python && MYPYPATH=$only /usr/bin/python3 -m mypy --cache-dir=build/mypy -p yoke &&
        MYPYPATH=$only .venv/bin/python -m mypy.stubtest yoke --ignore-unused-allowlist \
            --allowlist <(echo 'yoke[.]_.*')
}

# Sound, and each call of the headers has its page.
man_pages() {
    local call pages bad=0
    mandoc -T lint -W warning docs/man/*.[1-8] || bad=1
    for call in $(sed -n 's/^YOKE_API.*[ *]\(yoke_[a-z0-9_]*\)(.*/\1/p' include/yoke/*.h); do
        pages=$(grep -lE "^\.Nm $call( ,)?$" docs/man/*.3 | wc -l)
        [ "$pages" = 1 ] && continue
        echo "$call: error: named by $pages manual pages"
        bad=1
    done
    return $bad
}

step() { # name
    local log=$logs/$1 count
    [ -z "${ONLY:-}" ] || [[ " $ONLY " == *" $1 "* ]] || return
    [[ " ${SKIP:-} " != *" $1 "* ]] || return
    if "$1" >"$log" 2>&1; then
        passed=$((passed + 1))
        count=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
        echo "ok    $1${count:+: $count}"
    else
        failed=$((failed + 1))
        echo "FAIL  $1 (all of it: $log)"
        { grep -E ': (fatal )?error:|^FAIL|^ +\| ' "$log" || cat "$log"; } | tail -n 60 |
            sed 's/^/      | /'
    fi
}

mkdir -p $logs
for name in format rooms sync banned headers man_pages gcc_build clang_build debug_build tidy \
    tests stubs asan tsan python_asan python_313 fuzz models arm; do
    step $name
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
