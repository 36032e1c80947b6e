# SPDX-License-Identifier: MIT
# lib.sh - what the tests of the command line share: `. "$(dirname "$0")/lib.sh"`.
#
# Idea: a check says what was expected and what came, and the test goes on; done_testing ends it.
# Nothing sleeps for a guessed time: wait_for asks until a deadline.

YOKE=${YOKE:-build/yoke}
EXAMPLES=${EXAMPLES:-build/examples}
failures=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() { # what
    echo "FAIL: $1"
    failures=$((failures + 1))
}

skip() { # why
    echo "skipped: $1"
    exit 77
}

# Runs a command; its output is in $scratch/out and $scratch/err, its exit code in $code.
run() {
    "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
    code=$?
}

expect_code() { # code, of what
    [ "$code" -eq "$1" ] || { fail "$2: exit code $code, not $1"; head -n 20 "$scratch"/{out,err}; }
}

expect() { # out|err, pattern (extended), of what
    grep -Eq -- "$2" "$scratch/$1" || { fail "$3: no '$2' in $1:"; head -n 60 "$scratch/$1"; }
}

expect_not() { # out|err, pattern (extended), of what
    ! grep -Eq -- "$2" "$scratch/$1" || { fail "$3: '$2' in $1"; grep -E -- "$2" "$scratch/$1"; }
}

wait_for() { # seconds, command...: until it succeeds
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.02
    done
}

done_testing() {
    [ "$failures" -eq 0 ] || echo "$failures failed"
    exit $((failures > 0))
}
