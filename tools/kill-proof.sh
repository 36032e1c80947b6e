#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kill-proof.sh - each scene of tests/fault/test_stepkill_*.c, killed at each instruction, in four
# builds (gcc and clang, -O2 and -O0); a table at the end, and in build/kill-proof/table.md.
#
# Idea: `make test` takes a share of the instructions; this takes them all, and hours. DEPTH=each
# leaves out later rounds of loops, and with DEPTH= it is the share of `make test`, in each build.
# A scene that fails stops its program, and counts as failed here.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

out=build/kill-proof
variants=${VARIANTS:-gcc-O2 clang-O2 gcc-O0 clang-O0}
depth=${DEPTH-full}
mapfile -t tests < <(basename -s .c -a tests/fault/test_stepkill_*.c)
failed=0
mkdir -p "$out"

prove() { # variant
    local dir=$out/$1 test
    make --no-print-directory BUILD="$dir" CC="${1%-*}" CFLAGS="-${1#*-} -g -Wno-error" SAN= \
        "${tests[@]/#/$dir/tests/fault/}" >"$out/$1.build" 2>&1 ||
        { tail -n 20 "$out/$1.build" && failed=$((failed + 1)) && return; }
    for test in "${tests[@]}"; do
        "$dir/tests/fault/$test" '' $depth >"$out/$1.$test" 2>&1 </dev/null || {
            failed=$((failed + 1))
            echo "FAIL  $1 $test" && tail -n 5 "$out/$1.$test"
        }
        sed -n "s/^    \(.*: [0-9]* \(points\|snapshots\)\)/$1: \1/p" "$out/$1.$test" >>"$out/log"
        echo "$1 $test: $(sed -n 's/^summary: //p' "$out/$1.$test")"
    done
}

# A line for each scene: the real kills of each build, then what was lost and doubled in all.
table() {
    awk -v variants="$variants" '
        BEGIN {
            count = split(variants, variant, " ")
            printf "| scene |"
            for (i = 1; i <= count; i++) printf " %s |", variant[i]
            printf " lost | doubled |\n|---|"
            for (i = 1; i <= count + 2; i++) printf "---:|"
            print ""
        }
        match($0, /: [0-9]+ snapshots/) { snapshots += substr($0, RSTART + 2) + 0; next }
        match($0, /: [0-9]+ points, [0-9]+ lost, [0-9]+ doubled/) {
            split(substr($0, RSTART + 2, RLENGTH), number, /[ ,a-z]+/)
            where = substr($0, 1, index($0, ":") - 1)
            scene = substr($0, length(where) + 3, RSTART - length(where) - 3)
            if (!(scene in lost)) order[++scenes] = scene
            kills[scene, where] += number[1]; lost[scene] += number[2]; doubled[scene] += number[3]
            sum[where] += number[1]; all += number[1]
            all_lost += number[2]; all_doubled += number[3]
        }
        END {
            for (i = 1; i <= scenes; i++) {
                printf "| %s |", order[i]
                for (k = 1; k <= count; k++) printf " %d |", kills[order[i], variant[k]]
                printf " %d | %d |\n", lost[order[i]], doubled[order[i]]
            }
            printf "| all |"
            for (k = 1; k <= count; k++) printf " %d |", sum[variant[k]]
            printf " %d | %d |\n\n", all_lost, all_doubled
            printf "%d real kills, %d snapshots, %d lost, %d doubled\n", all, snapshots, all_lost,
                all_doubled
        }' "$out/log"
}

[ "${1:-}" != table ] || { table && exit; } # once more, of the log that is there

echo "$(date -u '+%Y-%m-%d %H:%M') UTC, commit $(git log -1 --format='%h %s')"
: >"$out/log"
for variant in $variants; do
    prove "$variant"
done
table | tee "$out/table.md"
echo "$failed programs failed"
[ "$failed" -eq 0 ]
