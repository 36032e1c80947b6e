#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_real_input.sh - the examples that read or draw much: what comes out is checked by others.
#
# Idea: wordcount is compared with wc, byte for byte the same figures; the picture of mandelbrot is
# taken apart here, without libpng: its size, its colours, and that it is its own mirror image.
. "$(dirname "$0")/lib.sh"
export LC_ALL=C

# ---- wordcount

counted() { # folder: as wc counts it
    find "$1" -type f ! -name '*.gz' -print0 | wc -lwc --files0-from=- | tail -n 1 |
        awk '{ print $1 " lines, " $2 " words, " $3 " bytes" }'
}

check_count() { # folder
    local expected
    expected=$(counted "$1")
    run "$EXAMPLES/wordcount" "$1"
    expect_code 0 "wordcount $1"
    expect out "^$expected in [0-9]+ files" "wordcount $1"
}

# What prints and what does not, in words and beside them; later versions of wc differ there.
mkdir "$scratch/odd"
printf 'one two\n\nthree\tfour\vfive\ffsix\r\nno end of line' >"$scratch/odd/text"
: >"$scratch/odd/empty"
printf '\n' >"$scratch/odd/line"
head -c 300000 /dev/zero >"$scratch/odd/zeros"
printf 'not counted' >"$scratch/odd/packed.gz"
ln -s /etc/passwd "$scratch/odd/link"
mkfifo "$scratch/odd/fifo"
check_count "$scratch/odd"
if [ "$(printf '\200 \1 x' | wc -w)" -eq 1 ]; then
    head -c 1000000 /dev/urandom >"$scratch/odd/noise"
    check_count "$scratch/odd"
    [ ! -d /usr/share/doc ] || check_count /usr/share/doc
    check_count /usr/include/linux
else
    echo 'this wc counts as words what does not print: only compared where all does'
fi

run "$EXAMPLES/wordcount" "$scratch/nowhere"
expect_code 1 'wordcount of what is not there'
expect err 'No such file' 'wordcount of what is not there'

# ---- mandelbrot

look_at_picture() { # file, width, height
    python3 - "$@" <<'END'
import struct, sys, zlib

data = open(sys.argv[1], "rb").read()
width, height = int(sys.argv[2]), int(sys.argv[3])
assert data[:8] == b"\x89PNG\r\n\x1a\n", "no PNG"
chunks, at = {}, 8
while at < len(data):
    (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
    body = data[at + 8 : at + 8 + length]
    assert struct.pack(">I", zlib.crc32(kind + body)) == data[at + 8 + length : at + 12 + length]
    chunks[kind] = chunks.get(kind, b"") + body
    at += length + 12
assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (width, height, 8, 2, 0, 0, 0), "not that size"
raw, rows, before = zlib.decompress(chunks[b"IDAT"]), [], bytes(width * 3)
for y in range(height):
    how, *row = raw[y * (width * 3 + 1) : (y + 1) * (width * 3 + 1)]
    for i in range(width * 3):
        a, c = (row[i - 3], before[i - 3]) if i >= 3 else (0, 0)
        b = before[i]
        near = min((a, b, c), key=lambda v: abs(a + b - c - v))
        row[i] = row[i] + (0, a, b, (a + b) // 2, near)[how] & 255
    rows.append([tuple(row[i : i + 3]) for i in range(0, width * 3, 3)])
    before = row
colours = {pixel for row in rows for pixel in row}
assert len(colours) > 40, f"{len(colours)} colours"
black = sum(pixel == (0, 0, 0) for row in rows for pixel in row)
assert 0.08 < black / (width * height) < 0.4, f"{black} pixels of the set"
# Row y stands for y - height / 2: each but the first has its mirror image.
assert all(rows[y] == rows[height - y] for y in range(1, height)), "not its own mirror image"
END
}

for how in '300x200' '300x200 1' '301x120 5'; do
    # shellcheck disable=SC2086
    run "$EXAMPLES/mandelbrot" "$scratch/set.png" $how
    expect_code 0 "mandelbrot $how"
    expect out '^[0-9]+x[0-9]+: [0-9.]+ s alone, [0-9.]+ s with [0-9]+ workers' "mandelbrot $how"
    size=${how%% *}
    look_at_picture "$scratch/set.png" "${size%x*}" "${size#*x}" >"$scratch/look" 2>&1 ||
        { fail "mandelbrot $how: the picture"; tail -n 3 "$scratch/look"; }
done

run "$EXAMPLES/mandelbrot" "$scratch/set.png" 0x10
expect_code 2 'mandelbrot of no size'
run "$EXAMPLES/mandelbrot" "$scratch/nowhere/set.png" 30x20
expect_code 1 'mandelbrot to where nothing can be written'

done_testing
