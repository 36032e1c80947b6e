#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_planted_bugs.sh - a harness that finds nothing proves nothing: it must find these.
#
# Idea: each tests/fault/planted/*.patch is a mistake one could make in the library. It goes into a
# copy of the one file it is about; that file, compiled, takes the place of the right one in a
# test program, and the named part of it must fail, at the named check. A patch that does not fit
# any more is a failure too: the mistake has to be planted anew. timeout: 120
. "$(dirname "$0")/lib.sh"

: "${BUILD:=build}" "${CC:=gcc}"
command -v patch >/dev/null || skip 'patch is not installed'
[ -z "${VIA:-}" ] || skip 'no stepping under an emulator'
! nm "$BUILD/libyoke.a" 2>/dev/null | grep -q '__[at]san_init' || skip 'no stepping under a sanitizer'

flags='-std=c11 -D_GNU_SOURCE -O2 -g -fPIC -fvisibility=hidden -pthread -Wl,-z,now'
flags="$flags -Iinclude -Isrc -Itests"

field() { # name, patch
    sed -n "s/^$1: *//p" "$2"
}

plant() { # patch: the file with the bug in, at the same place under $scratch/src
    local file
    file=$(sed -n 's:^+++ b/::p' "$1")
    mkdir -p "$scratch/${file%/*}" && cp "$file" "$scratch/$file"
    (cd "$scratch" && patch -s -p1) <"$1" || return 1
    $CC $flags "-I$(dirname "$file")" -c -o "$scratch/bug.o" "$scratch/$file"
}

found() { # patch
    local name test part caught
    name=$(basename "$1" .patch)
    read -r test part <<<"$(field Run "$1")"
    caught=$(field Caught "$1")
    plant "$1" >"$scratch/plant" 2>&1 || {
        fail "$name: the patch does not fit, or does not compile"
        cat "$scratch/plant"
        return
    }
    $CC $flags -o "$scratch/$test" "tests/fault/$test.c" "$scratch/bug.o" "$BUILD/libyoke.a" || {
        fail "$name: does not link"
        return
    }
    run timeout 60 "$scratch/$test" "$part"
    [ "$code" -ne 77 ] || skip "$(tail -n 1 "$scratch/out" | sed 's/^skipped: //')"
    if [ "$code" -eq 0 ]; then
        fail "$name: not found by $test $part"
    elif ! grep -Eq -- "FAILED: ($caught)" "$scratch/err"; then
        fail "$name: found, but not by '$caught':"
        tail -n 5 "$scratch/err"
    else
        printf '%s\n    found by: %s\n   %s\n' "$(field Bug "$1")" \
            "$(sed -n 's/^FAILED: //p' "$scratch/err")" \
            "$(sed -n '/^FAILED: /{n;p;}' "$scratch/err")"
    fi
}

# What is planted in must not be there by itself.
for part in 'calls inline_call' 'sweeps map_with_outcomes'; do
    program="$BUILD/tests/fault/test_stepkill_${part% *}"
    [ ! -x "$program" ] || { run timeout 60 "$program" "${part#* }"; cp "$scratch/err" "$scratch/sound"; }
    [ ! -x "$program" ] || [ "$code" -eq 77 ] || expect_code 0 "without a bug, $part"
done

count=0
for patch in tests/fault/planted/*.patch; do
    found "$patch"
    count=$((count + 1))
done
[ "$count" -ge 5 ] || fail "only $count planted bugs"
echo "$count bugs planted, $failures not found"
done_testing
