#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_usage.sh - wrong usage is named, hinted at and ends with 2; help and version end with 0.
. "$(dirname "$0")/lib.sh"

run "$YOKE" --version
expect_code 0 '--version'
version=$(sed -n 's/^.define YOKE_VERSION_[A-Z]* //p' include/yoke/base.h | paste -sd.)
expect out "^yoke ${version//./\\.}\$" '--version'

run "$YOKE"
expect_code 2 'no command'
expect err '^usage: yoke COMMAND' 'no command'

run "$YOKE" help
expect_code 0 'help'
for command in demo tour help; do
    expect out "^ *$command " 'help'
    run "$YOKE" help "$command"
    expect_code 0 "help $command"
    expect out "^usage: yoke $command" "help $command"
    run "$YOKE" help
done
run "$YOKE" tour --help
expect_code 0 'tour --help'
expect out '^usage: yoke tour' 'tour --help'

wrong() { # the word that must be named, the arguments
    local word=$1
    shift
    run "$YOKE" "$@"
    expect_code 2 "yoke $*"
    expect err "'$word'" "yoke $*"
    expect err "^Try '.* help" "yoke $*"
    [ ! -s "$scratch/out" ] || fail "yoke $*: wrote to standard output"
}
wrong fly fly
wrong --fly --fly
wrong fly help fly
wrong now demo now
wrong now tour now
wrong --jsn tour --jsn
wrong --only tour --only
wrong gpu tour --only gpu
wrong gpu tour --only=gpu --json
expect err '^The rows are: start-up memory ipc cpu io stop$' 'an unknown row'

# A full disk is not success.
if [ -e /dev/full ]; then
    "$YOKE" help >/dev/full 2>"$scratch/err"
    code=$?
    expect_code 1 'help > /dev/full'
    expect err 'cannot write' 'help > /dev/full'
fi

done_testing
