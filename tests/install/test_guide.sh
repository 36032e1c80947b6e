#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_guide.sh - each example of docs/threads.md compiles, and prints what the page says.
#
# Idea: the page is the list. A block of C is a whole program; the next block is what it prints, but
# for what a pool says of itself (yoke_pool_why): those figures are of one run.
set -u
. "$(dirname "$0")/../cli/lib.sh"

# Writes N.c, and N.want if a block without a language follows before the next program.
awk -v to="$scratch/" '
    /^```c$/ { program++; name = to program ".c"; next }
    /^```$/ && name == "" && program && !wanted[program] { wanted[program] = 1; name = to program ".want"; next }
    /^```/ { name = ""; next }
    name != "" { print >name }
' docs/threads.md

count=0
for source in "$scratch"/*.c; do
    program=${source%.c}
    count=$((count + 1))
    "$CC" -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -Werror -Iinclude -o "$program" "$source" \
        "$BUILD/libyoke.a" -pthread || { fail "does not compile: $(cat "$source")"; continue; }
    run timeout 30 "$program"
    expect_code 0 "$(cat "$source")"
    grep -q yoke_pool_why "$source" && continue
    diff "$program.want" "$scratch/out" || fail "prints something else: $(cat "$source")"
done
[ "$count" -ge 10 ] || fail "$count examples found"
done_testing
