#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_demo.sh - the demo tells all its parts, and python3 is not needed.
# timeout: 120
. "$(dirname "$0")/lib.sh"

run "$YOKE" demo
expect_code 0 'demo'
for heading in '1. Work that computes' '2. Work that waits' '3. Threads in Python' \
    '4. A worker is killed' 'Try next'; do
    expect out "^$heading\$" 'demo'
done
# Where a sentence is broken depends on the length of a process id.
tr -s '\n ' ' ' <"$scratch/out" >"$scratch/flat"
expect flat 'worker [0-9]+ got SIGKILL' 'demo'
expect flat 'Workers that died: 1' 'demo'
expect flat 'nothing is lost|equal to those of a serial run' 'demo'
expect_not out $'\033' 'escape codes on a pipe'
expect_not out 'failed' 'demo'

# The commands it names can be pasted as they are.
grep -A 9 '^Try next$' "$scratch/out" | grep '^  ' >"$scratch/next"
[ "$(wc -l <"$scratch/next")" -eq 3 ] || fail "demo: not three commands: $(cat "$scratch/next")"
while read -r command; do
    [[ $command != *' tour' ]] || continue # all of it: test_tour.sh
    run bash -c "$command"
    expect_code 0 "$command"
done <"$scratch/next"

# No python3 in the PATH.
mkdir "$scratch/bin"
yoke=$(realpath "$YOKE")
run env PATH="$scratch/bin" "$yoke" demo
expect_code 0 'demo without python3'
expect out 'python3 not found, skipped' 'demo without python3'

done_testing
