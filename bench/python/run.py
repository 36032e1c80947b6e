# SPDX-License-Identifier: MIT
"""run.py [-v] [-r ROUNDS] [PREFIX...] - the Python benchmarks, or those that begin so.

Idea: one line for each figure, as bench/main.c prints them; lines with '#' are remarks. Each figure
runs in a program of its own, so that none finds what another left, and one that hangs is ended.
Exit: 0, 1 if a figure was refused, 2 for a hang or wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys

FIGURE_SECONDS_MAX = 180


# What the figures named "-main" run: the same as in work.py.


def echo(value):
    return value


def squares(part):
    total = 0
    for number in range(*part):
        total += number * number
    return total


def figures():
    """All of them, by name; in the order in which they run."""
    import arrays
    import calls
    import memory
    import startup

    everything = calls.FIGURES + startup.FIGURES + arrays.FIGURES + memory.FIGURES
    return {figure.name: figure for figure in everything}


def run_here(name: str, rounds: int | None, verbose: bool) -> int:
    """Run one figure in this program."""
    try:
        figures()[name].run(rounds, verbose)
        return 0
    except Exception as why:
        kind = "" if type(why).__name__ == "Refused" else f"{type(why).__name__}: "
        text = kind + " ".join(str(why).split())
        print(f"# {name} REFUSED: {text[:300]}", flush=True)
        return 1


def run_apart(name: str, options: list[str]) -> int:
    """Run one figure in a program of its own."""
    command = [sys.executable, __file__, "--here", *options, name]
    # Variables of Python's change what is measured: without its cache each worker compiles work.py.
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    child = subprocess.Popen(command, env=env, start_new_session=True)
    try:
        return child.wait(FIGURE_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        print(f"# {name} REFUSED: it hangs", flush=True)
        return 2
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(" - ")[2].partition("\n")[0])
    parser.add_argument("-v", dest="verbose", action="store_true", help="adds the spread")
    parser.add_argument("-r", dest="rounds", type=int, help="rounds of each figure")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("prefixes", nargs="*", metavar="PREFIX")
    options = parser.parse_args()
    if options.here:
        return run_here(options.prefixes[0], options.rounds, options.verbose)
    passed = ["-v"] * options.verbose + (["-r", str(options.rounds)] if options.rounds else [])
    chosen = tuple(options.prefixes) or ("",)
    print("# FIGURE\tYOKE\tUNIT\tREFERENCE\tREFERENCE-VALUE\tRATIO", flush=True)
    return max((run_apart(n, passed) for n in figures() if n.startswith(chosen)), default=0)


if __name__ == "__main__":
    sys.exit(main())
