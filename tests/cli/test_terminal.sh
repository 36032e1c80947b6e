#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_terminal.sh - what the tour looks like on a terminal: bars and colours, NO_COLOR, narrow.
. "$(dirname "$0")/lib.sh"
command -v script >/dev/null || skip 'there is no script(1) to make a terminal with'

terminal() { # columns, environment...
    local columns=$1
    shift
    run env -u NO_COLOR TERM=xterm LC_ALL=C.UTF-8 "$@" \
        script -qec "stty cols $columns; '$YOKE' tour --only ipc" /dev/null
    expect_code 0 "on a terminal of $columns columns with $*"
}

terminal 80 LC_ALL=C.UTF-8
expect out $'\033\\[[0-9]+m' 'colours'
expect out '█' 'bars'

terminal 80 NO_COLOR=1
expect_not out $'\033\\[[0-9]+m' 'NO_COLOR'
expect out '█' 'NO_COLOR: bars'

terminal 80 LC_ALL=C
expect_not out '█' 'a terminal without UTF-8'
expect out '##' 'a terminal without UTF-8'

terminal 80 TERM=dumb
expect_not out $'\033' 'TERM=dumb'

# The longest line: without escape codes, and of what was redrawn only the last.
for columns in 30 60 120; do
    terminal "$columns" NO_COLOR=1
    longest=$(sed 's/\r$//; s/.*\r//; s/\x1b\[[0-9]*[mK]//g' "$scratch/out" | LC_ALL=C.UTF-8 wc -L)
    [ "$longest" -le "$columns" ] || fail "$columns columns: a line of $longest"
    [ "$longest" -ge $((columns < 100 ? columns - 8 : 92)) ] || fail "$columns columns: $longest used"
done

done_testing
