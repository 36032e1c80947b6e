#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""check_banned.py ROOT - calls that must not be, and what the first line of a file must be.

Some calls are banned in the whole product, some in the library, which never prints, exits, sets
errno or reads the environment, and some belong to one room. Comments and strings do not count.
"""
import pathlib
import re
import sys

UNSAFE = (
    "strcpy strcat sprintf vsprintf gets atoi atol atoll strtok system popen pthread_cancel signal "
    "vfork sleep usleep alloca mktemp tmpnam"
).split()
SHOWN = {("cli/tour_stop.c", "pthread_cancel")}  # where the tour shows what comes of it
TALKING = (
    "printf fprintf vprintf vfprintf dprintf puts fputs putchar perror "
    "exit quick_exit atexit getenv secure_getenv setenv putenv"
).split()
# call -> the only places in src/ where it may be
PLACES = {
    "_exit": ("src/process/", "src/platform/"),
    "_Exit": ("src/process/", "src/platform/"),
    "fork": ("src/process/", "src/platform/"),
    "abort": ("src/base/", "src/platform/"),
    "sigaction": ("src/platform/",),
    "syscall": ("src/platform/",),
    "pthread_create": ("src/platform/",),
    "clock_gettime": ("src/platform/",),
    "nanosleep": ("src/platform/",),
    "clock_nanosleep": ("src/platform/",),
}
CALL = re.compile(r"(?<![\w.>])(\w+)\s*\(")
SETS_ERRNO = re.compile(r"(?<![\w.>])errno\s*=(?!=)(?!\s*saved)")
NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)


def code_of(text):
    """The text without comments and strings; lines keep their numbers."""
    return NOISE.sub(lambda found: "\n" * found.group().count("\n"), text)


def faults(rel, text):
    in_library = rel.startswith("src/")
    for number, line in enumerate(code_of(text).splitlines(), 1):
        for call in CALL.findall(line):
            if call in UNSAFE and (rel, call) not in SHOWN:
                yield number, f"{call}() is banned"
            elif in_library and call in TALKING:
                yield number, f"{call}() is not for the library"
            elif in_library and call in PLACES and not rel.startswith(PLACES[call]):
                yield number, f"{call}() belongs in {' or '.join(PLACES[call])}"
        if in_library and SETS_ERRNO.search(line):
            yield number, "the library never sets errno (errno = saved... is to restore it)"


def main(root):
    bad = 0
    for top in ("include", "src", "cli", "examples", "bench", "tests", "python"):
        for path in sorted((root / top).rglob("*.[ch]")):
            rel = path.relative_to(root).as_posix()
            text = path.read_text(errors="replace")
            found = list(faults(rel, text)) if top in ("src", "cli", "python") else []
            if not text.startswith("/* SPDX-License-Identifier: MIT\n"):
                found.append((1, "the first line is not the SPDX line"))
            count = text.count("\n")
            if count > 600 and top in ("src", "cli", "python"):
                found.append((count, "a file has 600 lines at most"))
            for number, why in found:
                print(f"{rel}:{number}: {why}")
                bad = 1
    return bad


sys.exit(main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
