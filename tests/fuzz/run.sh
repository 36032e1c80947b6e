#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh BUILD fuzz RUNS [ONLY] | run.sh BUILD planted [ONLY] - called by `make fuzz`.
#
# fuzz: RUNS inputs in all, shared out to the harnesses (those with ONLY in their name), some at
# once. What was found worth keeping lies in BUILD/corpus and is where the next run begins.
# planted: each planted/*.bug goes into a copy of the one file it is about, that file takes the
# place of the right one in its harness, and this must crash within the stated number of inputs.
set -u
cd "$(dirname "$0")/../.." || exit 1

build=$1 what=$2 && shift 2
export ASAN_OPTIONS=malloc_context_size=2:quarantine_size_mb=2
# No help from the values that are compared: the harnesses know what hurts, and it halves the speed.
readonly common='-max_len=256 -entropic=0 -detect_leaks=0 -timeout=20 -rss_limit_mb=2048
    -print_final_stats=1'
scratch=$(mktemp -d) && trap 'rm -rf "$scratch"' EXIT
passed=0 failed=0

share() { # harness: percent of the inputs
    case $1 in
    fuzz_heap) echo 60 ;;
    fuzz_table) echo 25 ;;
    *) echo 15 ;;
    esac
}

stat_of() { # name, log
    sed -n "s/^stat::$1: *//p" "$2"
}

fuzz_one() { # harness, inputs
    local corpus=$build/corpus/$1 log=$build/logs/$1
    mkdir -p "$corpus" "$build/logs"
    "$build/tests/fuzz/$1" $common -runs="$2" -artifact_prefix="$build/logs/$1-" "$corpus" \
        >"$log" 2>&1
    echo $? >"$scratch/$1"
}

end_one() { # harness, exit code
    local log=$build/logs/$1
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
        printf 'ok    %s: %s inputs, %s a second, %s edges\n' "$1" \
            "$(stat_of number_of_executed_units "$log")" "$(stat_of average_exec_per_sec "$log")" \
            "$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)"
    else
        failed=$((failed + 1))
        printf 'FAIL  %s (%s)\n' "$1" "$log"
        grep -E '^FAILED|^    at |runtime error|ERROR|SUMMARY|Test unit|^    #[0-9]+ .*(src|tests)/' \
            "$log" | head -n 30 | sed 's/^/      | /'
    fi
}

fuzz() { # inputs, only
    local harness name names=()
    for harness in tests/fuzz/fuzz_*.c; do
        name=$(basename "$harness" .c)
        [[ $name == *"$2"* ]] || continue
        while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do wait -n; done
        fuzz_one "$name" $(($1 * ($([ -n "$2" ] && echo 100 || share "$name")) / 100)) &
        names+=("$name")
    done
    wait
    for name in "${names[@]}"; do
        end_one "$name" "$(cat "$scratch/$name")"
    done
}

plant() { # bug, harness: builds $scratch/name
    local file flags wraps
    flags=$(cut -d' ' -f2- "$build/flags")
    file=$(python3 tests/fault/planted/plant.py "$1" "$scratch") || return 1
    wraps=$(sed -n 's/^.*__wrap_\([a-z_]*\)(.*/-Wl,--wrap=\1/p' tests/fuzz/seam.c \
        "tests/fuzz/$2.c" | sort -u)
    clang $flags -w -Isrc "-I$(dirname "$file")" -c -o "$scratch/bug.o" \
        "$scratch/$(basename "$file")" &&
        clang -fsanitize=fuzzer,address,undefined $wraps -o "$scratch/harness" "$scratch/bug.o" \
            "$build/obj/tests/fuzz/$2.o" "$build/obj/tests/fuzz/seam.o" "$build/libyoke.a"
}

find_bug() { # bug
    local name harness most
    name=$(basename "$1" .bug)
    read -r harness most < <(sed -n 's/^Run: *//p' "$1")
    if ! plant "$1" "$harness" >"$scratch/log" 2>&1; then
        echo "FAIL  $name: it does not fit, or does not compile"
        tail -n 5 "$scratch/log"
        failed=$((failed + 1))
        return
    fi
    "$scratch/harness" $common -timeout=3 -seed="${SEED:-1}" -runs="$most" \
        -artifact_prefix="$scratch/" >"$scratch/log" 2>&1
    if [ $? -eq 0 ]; then
        echo "FAIL  $name: not found by $most inputs of $harness"
        failed=$((failed + 1))
    else
        printf 'ok    %s: found by input %s of %s: %s\n' "$name" \
            "$(stat_of number_of_executed_units "$scratch/log")" "$harness" \
            "$(sed -n 's/^FAILED: //p;s/^SUMMARY: [A-Za-z]*: //p' "$scratch/log" | head -n 1)"
        passed=$((passed + 1))
    fi
}

planted() { # only
    local bug
    for bug in tests/fuzz/planted/*.bug; do
        [[ $bug == *"$1"* ]] && find_bug "$bug"
    done
}

case $what in
fuzz) fuzz "$1" "${2:-}" ;;
planted) planted "${1:-}" ;;
esac
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
