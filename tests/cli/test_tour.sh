#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_tour.sh - the tour measures its six rows, as JSON and as plain text on a pipe.
# timeout: 120
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip 'there is no python3 to check JSON with'

run "$YOKE" tour --json
expect_code 0 'tour --json'
python3 -m json.tool "$scratch/out" >/dev/null || fail 'tour --json: not JSON'
python3 - "$scratch/out" <<'END' || fail 'tour --json: not what was promised'
import json, sys

rows = json.load(open(sys.argv[1]))
assert [row["row"] for row in rows] == ["start-up", "memory", "ipc", "cpu", "io", "stop"], rows
for row in rows:
    assert row["claim"] and row["verdict"] and row["cpus"] >= 1, row
    kinds = {figure["yoke"] for figure in row["figures"]}
    measured = "Not measured" not in row["verdict"]
    assert kinds == {True, False} or not measured, row  # both with Yoke and without
    for figure in row["figures"]:
        assert figure["name"] and figure["unit"] in ("ns", "bytes", "items"), figure
        assert figure["value"] > 0 or row["row"] == "stop", figure
    if row["row"] == "stop" and measured:
        left = [f["value"] for f in row["figures"] if f["unit"] != "ns"]
        assert left[0] >= 1e6 and left[1:] == [0, 1, 0], row  # bytes, bytes, locks, locks
END

run "$YOKE" tour --only io --only=start-up
expect_code 0 'tour --only'
expect out '^Start-up: "Starting a thread is faster' 'tour --only'
expect out '^I/O-bound work: ' 'tour --only'
expect_not out '^(Memory|IPC|CPU)' 'tour --only'
expect out '2 of 2 rows' 'tour --only'
expect_not out $'\033' 'escape codes on a pipe'
expect_not out $'\r' 'redrawn lines on a pipe'
[ ! -s "$scratch/err" ] || fail 'tour: wrote to standard error'

done_testing
