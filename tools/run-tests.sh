#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run-tests.sh BUILD TEST... - run each test by itself and say how it went.
#
# Idea: a test is a source file, tests/.../test_x.c (its program is under BUILD), test_x.sh or
# test_x.py (run by PYTHON). It runs in a session of its own, so that what it leaves running is
# seen, killed and counted against it. 0 is passed, 77 skipped (the last line says why), all else failed. The limit is 60 seconds
# or what the source asks for (`timeout: 120`), times SLOW. VIA is an emulator to run programs in.
# What a test that passed says after `summary: ` is shown. JOBS tests of Python (2) run at once.
# Tests see YOKE (the command), EXAMPLES (a folder), BUILD, CC and VIA.
set -u

BUILD=$(realpath "$1") && shift
export BUILD YOKE=$BUILD/yoke EXAMPLES=$BUILD/examples VIA=${VIA:-}
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
scale=$((${SLOW:-1})) jobs=$((${JOBS:-2}))
logs=$BUILD/logs
passed=0 failed=0 skipped=0

# A sanitizer's report fails the test even where the process that made it was meant to die; signals
# are left alone, since tests crash on purpose.
readonly quiet='handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigill=0:handle_sigfpe=0'
sanitizers() { # log
    export ASAN_OPTIONS="$quiet:log_path=$1.report:allocator_may_return_null=1:print_legend=0:${ASAN_MORE:-}"
    export TSAN_OPTIONS="$quiet:log_path=$1.report:halt_on_error=1:second_deadlock_stack=1"
    export UBSAN_OPTIONS="log_path=$1.report:print_stacktrace=1"
}

members() { # session: the processes in it that are not dead
    local pid line
    for pid in /proc/[0-9]*; do
        read -r line 2>/dev/null <"$pid/stat" || continue
        # After the name: state, parent, group, session.
        set -- "$1" ${line##*) }
        [ "$5" = "$1" ] && [ "$2" != Z ] && echo "${pid#/proc/}"
    done
}

kill_session() {
    local i pids
    for ((i = 0; i < 50; i++)); do
        pids=$(members "$1")
        [ -n "$pids" ] || return
        kill -KILL $pids
        sleep 0.02
    done
}

left_running() { # session: true if something is, still after two seconds
    local i
    for ((i = 0; i < 40; i++)); do
        [ -n "$(members "$1")" ] || return 1
        sleep 0.05
    done
}

run() { # test log: sets status, and why when it failed
    local limit program clock first
    limit=$(sed -n 's:^[ /*#]*timeout\: *\([0-9][0-9]*\).*:\1:p' "$1" | head -n 1)
    limit=$((${limit:-60} * scale))
    case $1 in
    *.c) program=($VIA "$BUILD/${1%.c}") ;;
    *.py) program=(${PYTHON:-python3} tests/python/run.py "$1") ;;
    *) program=(bash "$1") ;;
    esac

    # A shell's children in the background ignore Ctrl-C; a test must not.
    YOKE_TEST_LIMIT=$limit setsid env --default-signal=INT,QUIT "${program[@]}" </dev/null >"$2" 2>&1 &
    session=$!
    sleep "$limit" &
    clock=$!
    wait -n -p first "$session" "$clock"
    status=$?
    kill "$clock" && wait "$clock"

    why="exit code $status"
    [ "$status" -gt 128 ] && why="signal $((status - 128)) ($(kill -l "$status"))"
    if [ "$first" = "$clock" ]; then
        status=1 why="not done after $limit s"
    elif left_running "$session"; then
        status=1 why='left processes running'
        { echo '-- left running:'; ps -o pid,stat,args -p "$(members "$session" | paste -sd,)"; } >>"$2"
    elif compgen -G "$2.report*" >/dev/null; then
        status=1 why='a sanitizer has something to say'
        cat "$2".report* >>"$2"
    fi
    kill_session "$session"
} 2>/dev/null

one() { # test: runs it and says how it went; 0 passed, 77 skipped, else failed
    local name=${1#tests/} log from took said
    name=${name%.*} log=$logs/${name%.*}
    mkdir -p "${log%/*}" && rm -f "$log" "$log".report*
    sanitizers "$log"
    from=${EPOCHREALTIME/./}
    run "$1" "$log"
    took=$(((${EPOCHREALTIME/./} - from) / 1000))
    case $status in
    0)
        said=$(sed -n 's/^summary: //p' "$log" | tail -n 1)
        printf 'ok    %s (%d ms)%s\n' "$name" "$took" "${said:+: $said}"
        ;;
    77)
        printf 'skip  %s: %s\n' "$name" "$(tail -n 1 "$log" | sed 's|^skipped: ||')"
        ;;
    *)
        printf 'FAIL  %s (%d ms): %s\n' "$name" "$took" "$why"
        tail -n 40 "$log" | sed 's/^/      | /'
        ;;
    esac
    return "$status"
}

count() { # exit code of one
    case $1 in
    0) passed=$((passed + 1)) ;;
    77) skipped=$((skipped + 1)) ;;
    *) failed=$((failed + 1)) ;;
    esac
}

stop() {
    trap '' INT TERM HUP
    [ -z "$(jobs -pr)" ] || kill -TERM $(jobs -pr) # tests beside it do the same
    rm -f "${said:-}"
    [ -z "${session:-}" ] || kill_session "$session"
    wait
    exit 130
}

[ $# -gt 0 ] || { echo 'run-tests: there is no such test' >&2; exit 1; }
trap stop INT TERM HUP
beside=0
for t; do
    # Tests of Python wait for most of their time.
    if [[ $t == *.py ]]; then
        [ "$beside" -lt "$jobs" ] || { wait -n; count $?; beside=$((beside - 1)); }
        (
            trap stop INT TERM HUP
            said=$(mktemp)
            one "$t" >"$said"
            code=$?
            cat "$said" && rm "$said"
            exit "$code"
        ) &
        beside=$((beside + 1))
    else
        one "$t"
        count $?
    fi
done
for ((; beside > 0; beside--)); do
    wait -n
    count $?
done
[ "$skipped" -eq 0 ] || more=", $skipped skipped"
echo "$passed passed, $failed failed${more:-}"
[ "$failed" -eq 0 ]
