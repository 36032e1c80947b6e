#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_planted_bugs.sh - a harness that finds nothing proves nothing: it must find these.
#
# Idea: each tests/fault/planted/*.bug is a mistake one could make in the library. It goes into a
# copy of the one file it is about; that file, compiled, takes the place of the right one in a
# test program, and the named part of it must fail, at the named check. A bug that does not fit
# any more is a failure too: it has to be planted anew.
# timeout: 600
. "$(dirname "$0")/lib.sh"

: "${BUILD:=build}" "${CC:=gcc}"
command -v python3 >/dev/null || skip 'there is no python3'
[ -z "${VIA:-}" ] || skip 'no stepping under an emulator'
flags=$(cut -d' ' -f2- "$BUILD/flags") || skip "no library in $BUILD"
flags="$flags -Isrc -Itests -Wno-error -w"
[[ $flags != *-fsanitize* ]] || skip 'no stepping under a sanitizer'

field() { # name, bug
    sed -n "s/^$1: *//p" "$2"
}

plant() { # bug test: compiles the file with the bug in, to $scratch/bug.o
    local file
    file=$(python3 tests/fault/planted/plant.py "$1" "$scratch") || return 1
    local asks=
    case $2:$file in
    test_inject*:*/platform/*) asks='-DINJECT_PLATFORM -include tests/fault/inject.h' ;;
    test_inject*) asks='-include tests/fault/inject.h' ;;
    esac
    $CC $flags $asks "-I$(dirname "$file")" -c -o "$scratch/bug.o" "$scratch/$(basename "$file")"
}

# Runs the part of a test, with the bug in if there is one: code, $scratch/out and $scratch/err.
run_part() { # test part [object]
    local library=$BUILD/libyoke.a
    [[ $1 != test_inject* ]] || library=$BUILD/inject.a
    local source=(tests/{fault,stress,unit/*}/"$1.c")
    $CC $flags -o "$scratch/$1" $(ls "${source[@]}" 2>/dev/null) ${3:-} "$library" || return 1
    run timeout 150 "$scratch/$1" "$2" each
    [ "$code" -ne 77 ] || skip "$(sed -n 's/^skipped: //p' "$scratch/out")"
}

# Without a bug the part passes, or finding one would mean nothing.
declare -A sound
check_sound() { # test part
    [ -z "${sound[$1 $2]:-}" ] || return 0
    run_part "$1" "$2" && [ "$code" -eq 0 ] || {
        fail "$1 $2 fails without a bug too:"
        tail -n 5 "$scratch/err"
    }
    sound[$1 $2]=1
}

find_bug() { # bug
    local name test part caught tries
    name=$(basename "$1" .bug)
    read -r test part <<<"$(field Run "$1")"
    caught=$(field Caught "$1")
    check_sound "$test" "$part"
    plant "$1" "$test" >"$scratch/plant" 2>&1 || {
        fail "$name: it does not fit, or does not compile"
        cat "$scratch/plant"
        return
    }
    # Some show only when two threads meet at one instruction: what finds nothing is run again.
    for ((tries = 1; tries <= 5; tries++)); do
        run_part "$test" "$part" "$scratch/bug.o" || {
            fail "$name: does not link"
            return
        }
        [ "$code" -eq 0 ] || break
    done
    if [ "$code" -eq 0 ]; then
        fail "$name: not found by $test $part, five times"
    elif ! grep -Eq -- "^FAILED: ($caught)" "$scratch/err"; then
        fail "$name: found, but not by '$caught':"
        tail -n 5 "$scratch/err"
    else
        printf '%s\n    found by: %s\n   %s\n' "$(field Bug "$1")" \
            "$(sed -n '/^FAILED: /{s///p;q;}' "$scratch/err")" \
            "$(sed -n '/^FAILED: /{n;p;q;}' "$scratch/err")"
    fi
}

count=0
for bug in tests/fault/planted/*.bug; do
    find_bug "$bug"
    count=$((count + 1))
done
[ "$count" -ge 16 ] || fail "only $count planted bugs"
echo "$count bugs planted, $failures not found"
done_testing
