#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_examples.sh - the examples print what they promise, and say when something failed.
. "$(dirname "$0")/lib.sh"

run "$EXAMPLES/squares"
expect_code 0 squares
expect out '333333833333500000$' squares

run "$EXAMPLES/shared"
expect_code 0 shared
expect out '^168 primes below 1000 in 10 lists, their sum is 76127$' shared

run "$EXAMPLES/crash"
expect_code 0 crash
cat >"$scratch/expected" <<'END'
item 0: ok, result 42
item 1: crashed with signal 11
item 2: called exit(3)
item 3: killed, it ran longer than its timeout
yoke_map said: at least one task did not end well

The same pool afterwards:
item 0: ok, result 42
item 1: ok, result 42
item 2: ok, result 42
item 3: ok, result 42
END
head -n 11 "$scratch/out" | diff "$scratch/expected" - || fail 'crash: not what was expected'

run "$EXAMPLES/fetch"
expect_code 0 fetch
for i in 1 2 3 4 5 6 7 8; do
    expect out "^200 +${i}000 bytes .*http://127\.0\.0\.1:[0-9]+/${i}000" fetch
done
# Eight times 50 ms waited for at the same time: less than half of the sum, on any machine.
awk '/ in all; / { exit !($1 > 0.045 && $1 < $(NF - 1) / 2) }' "$scratch/out" ||
    { fail 'fetch: not at the same time'; cat "$scratch/out"; }

run "$EXAMPLES/fetch" http://127.0.0.1:1/
expect_code 1 'fetch of what does not answer'
expect out 'http://127\.0\.0\.1:1/ .*[Cc]onnect' 'fetch of what does not answer'

run "$EXAMPLES/compress" /usr/include/linux
expect_code 0 compress
expect out '^[0-9]{3,} files, [0-9]+ bytes, [1-9][0-9]* kills, 0 results differ$' compress

run "$EXAMPLES/compress" "$scratch/nowhere"
expect_code 1 'compress of what is not there'

done_testing
