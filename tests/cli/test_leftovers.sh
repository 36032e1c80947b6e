#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_leftovers.sh - however the tour ends, no process is left, its plain forks included.
. "$(dirname "$0")/lib.sh"

members() { # session: how many processes are in it that are not dead
    ps -s "$1" -o stat= | grep -vc '^Z'
}
at_least() { [ "$(members "$1")" -ge "$2" ]; }
none() { [ "$(members "$1")" -eq 0 ]; }

interrupted() { # signal, row, processes to wait for
    setsid env --default-signal=INT,QUIT "$YOKE" tour --only "$2" >/dev/null 2>&1 </dev/null &
    local session=$!
    wait_for 20 at_least "$session" "$3" || fail "tour --only $2: never had $3 processes"
    kill "-$1" "$session"
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
