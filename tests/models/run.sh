#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# run.sh FOLDER [MODEL] - the models of the lock-free parts, checked by spin in all their states.
#
# Idea: each tests/models/*.pml has to hold as it stands; and with each of the WEAK_ words in it
# defined, one thing that matters is left out, and spin has to find out. A model that still holds
# then would prove nothing. Files are made in FOLDER. Called by `make models`.
set -u

here=$(realpath "$(dirname "$0")")
mkdir -p "$1" && cd "$1" || exit 1
export here

# spin only says what it found: a search that is not complete, or a model that is not one, is neither
# "holds" nor "found".
check() { # model, word or nothing: says holds, found or why not
    local name=$1 word=${2:-} dir=$1-${2:-sound} said
    rm -rf "$dir" && mkdir "$dir" && cd "$dir" || return
    spin -a ${word:+-D"$word"} "$here/$name.pml" >said 2>&1 &&
        gcc -O1 -w -DSAFETY -DMEMLIM=2000 -o pan pan.c >>said 2>&1 &&
        ./pan -m200000 >>said 2>&1
    if grep -qE '^error:|^warning:|pan: reached|max search depth too small' said; then
        said=incomplete
    elif grep -qE 'errors: 0$' said && grep -q 'Full statespace search' said; then
        said=holds
    elif grep -qE 'errors: [1-9]' said; then
        said=found
    else
        said=broken
    fi
    [ "$said" = holds ] || [ "$said" = found ] || tail -n 20 said >&2
    echo "$said"
}

one() { # model word
    local name=${1%%:*} word=${1#*:} wanted=holds said
    [ -z "$word" ] || wanted=found
    said=$(check "$name" "$word")
    if [ "$said" = "$wanted" ]; then
        echo "ok    models/$name${word:+ $word}: $said"
    else
        echo "FAIL  models/$name${word:+ $word}: $said, not $wanted"
    fi
}
export -f check one

cases() {
    local model
    for model in "$here"/*"${2:-}"*.pml; do
        model=${model##*/} model=${model%.pml}
        echo "$model:"
        grep -o 'WEAK_[A-Z_]*[A-Z]' "$here/$model.pml" | sort -u | sed "s/^/$model:/"
    done
}

cases "$@" | xargs -P "$(nproc)" -I CASE bash -c 'one CASE' | tee said
passed=$(grep -c '^ok' said) failed=$(grep -c '^FAIL' said)
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
