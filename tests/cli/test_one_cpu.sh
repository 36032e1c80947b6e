#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_one_cpu.sh - verdicts come from the figures: with one CPU the verdict on CPU-bound work is
# another one than with all, that on downloads is not.
# timeout: 120
. "$(dirname "$0")/lib.sh"
command -v taskset >/dev/null || skip 'there is no taskset'
command -v python3 >/dev/null || skip 'there is no python3 to read JSON with'

verdict() { # row
    python3 -c 'import json, sys
print(next(r["verdict"] for r in json.load(open(sys.argv[1])) if r["row"] == sys.argv[2]))' \
        "$scratch/out" "$1"
}

cpu=$(taskset -pc $$ | sed 's/.*: *//; s/[-,].*//')
run taskset -c "$cpu" "$YOKE" tour --json --only cpu --only io
expect_code 0 'tour with one CPU'
one=$(verdict cpu)
[[ $one == 'No gain'*'this process may use 1 CPU'* ]] || fail "one CPU: '$one'"
[[ $(verdict io) == 'True: '* ]] || fail "one CPU, downloads: '$(verdict io)'"

[ "$(nproc)" -gt 1 ] || { [ "$failures" -eq 0 ] && skip 'there is only one CPU to compare with'; }
run "$YOKE" tour --json --only cpu
expect_code 0 'tour with all CPUs'
all=$(verdict cpu)
[ "$one" != "$all" ] || fail "the same verdict with all CPUs: '$all'"
[[ $all != *'1 CPU'* ]] || fail "all CPUs: '$all'"

done_testing
