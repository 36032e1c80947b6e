#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""plant.py BUG FOLDER - put a bug into a copy of the source file it is about; prints that file.

A .bug file has `Bug:`, `Run:` and `Caught:` lines, then pairs of texts: what stands after a line
`--- instead of`, to be found exactly once in all of src/, is replaced by what stands after
`--- plant`. So it does not matter in which file, or where, the text is.
"""
import pathlib
import sys


def pairs(text):
    for part in text.split("--- instead of\n")[1:]:
        old, new = part.split("--- plant\n")
        yield old, new


def main():
    bug, folder = pathlib.Path(sys.argv[1]).read_text(), pathlib.Path(sys.argv[2])
    changed = {}
    for old, new in pairs(bug):
        sources = {p: p.read_text() for p in pathlib.Path("src").rglob("*.[ch]")} | changed
        holds = [p for p, text in sources.items() for _ in range(text.count(old))]
        if len(holds) != 1:
            sys.exit(f"found {len(holds)} times, not once:\n{old}")
        changed[holds[0]] = sources[holds[0]].replace(old, new)
    if len(changed) != 1:
        sys.exit("a bug is to be in one file")
    for path, text in changed.items():
        (folder / path.name).write_text(text)
        print(path)


main()
