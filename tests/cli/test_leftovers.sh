#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_leftovers.sh - however the tour ends, no process is left, its plain forks included.
# timeout: 120
. "$(dirname "$0")/lib.sh"

members() { # session: how many processes are in it that are not dead
    ps -s "$1" -o stat= | grep -vc '^Z'
}
at_least() { [ "$(members "$1")" -ge "$2" ]; }
none() { [ "$(members "$1")" -eq 0 ]; }

interrupted() { # signal, row, processes to wait for
    local session tries=0
    seen_or_over() { at_least "$session" "$1" || ps -p "$session" -o stat= | grep -q '^Z'; }
    # A row may be over before we have seen it at its widest: then once more.
    until [ $((tries += 1)) -gt 10 ]; do
        setsid env --default-signal=INT,QUIT "$YOKE" tour --only "$2" >/dev/null 2>&1 </dev/null &
        session=$!
        wait_for 60 seen_or_over "$3" || fail "tour --only $2: takes more than a minute"
        at_least "$session" "$3" && break
        wait "$session" 2>/dev/null
    done
    [ "$tries" -le 10 ] || fail "tour --only $2: never had $3 processes"
    kill "-$1" "$session" 2>/dev/null
    wait "$session" 2>/dev/null
    wait_for 3 none "$session" || {
        fail "tour --only $2 after SIG$1: left behind:"
        ps -s "$session" -o pid,stat,args
        ps -s "$session" -o pid= | xargs -r kill -KILL
    }
}

for signal in KILL TERM INT; do
    interrupted "$signal" io 16 # a server, and a worker for each download
    interrupted "$signal" ipc 5 # two plain forks beside Yoke's own
    interrupted "$signal" cpu 4 # a pool of each kind
done

done_testing
