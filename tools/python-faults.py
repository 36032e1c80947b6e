#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""python-faults.py [FILE.json...] - write docs/python-faults.md from what the tests saw.

Idea: tests/python/test_faults.py and test_hosts.py leave what each row saw as JSON in the build
folder, with the version of their Python. This only puts those side by side; nothing in the page is
written by hand. `make python-faults` runs the tests for each Python that is there, then this.
"""
import glob
import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOUND = ("build/python-faults/*.json", "build/*/made/build/python-faults/*.json")
STARTS = ("fresh", "fork")
HEAD = """# Python: what goes wrong, and what comes of it

This page is written by `make python-faults` from runs of
[faults.py](../tests/python/faults.py), [faults_pool.py](../tests/python/faults_pool.py) and
[test_hosts.py](../tests/python/test_hosts.py), which
`make test` runs too. Python: {versions}.

A row is good when one exception of the type named here comes for the task at fault alone; all other
tasks of the same submits and of the same map end well, each having run once; the same pool works
afterwards; and no process, thread, descriptor, name in `/dev/shm` or temporary file is left.

A cell has the exception, and how long after the fault it was there in ms, the longest of the row
(`fresh` / `fork`, the two ways to start workers). The times are of a machine that did other things
too. **fails** marks a row that is not good there.
"""
TITLES = {"faults": "Tasks", "faults_pool": "Pools", "test_hosts": "Programs around the pool"}


def load(paths: list[str]) -> dict:
    """{module: {row: {version: what was seen}}}, and the versions."""
    tables: dict = {}
    versions: dict = {}
    for path in paths:
        with open(path) as file:
            data = json.load(file)
        version = data["python"]
        versions[version] = tuple(int(n) for n in version.split(".")[:2])
        for module, rows in data["tables"].items():
            for name, seen in rows.items():
                tables.setdefault(module, {}).setdefault(name, {})[version] = seen
    return {"tables": tables, "versions": sorted(versions, key=versions.__getitem__)}


def cell(seen: dict | None) -> str:
    """What was seen of a row with one Python."""
    if not seen:
        return ""
    starts = [s for s in STARTS if s in seen]
    names = []
    for start in starts:
        name = "**fails**" if seen[start]["error"] else seen[start].get("raised", "well")
        names.append(name if name.startswith("*") or name == "well" else f"`{name}`")
    words = names[0] if len(set(names)) == 1 else " / ".join(names)
    times = [f"{seen[s]['ms']:g}" if "ms" in seen[s] else "-" for s in starts]
    if any(t != "-" for t in times):
        words += " " + " / ".join(times)
    if len(starts) == 1:
        words += f" ({starts[0]})"
    return words


def remarks(row: dict) -> str:
    """What the row noted, with the starts it was noted for if not for all."""
    noted: dict = {}
    for seen in row.values():
        for start in STARTS:
            for text in seen.get(start, {}).get("notes", []):
                noted.setdefault(text, set()).add(start)
    ran = {s for seen in row.values() for s in STARTS if s in seen}
    return "; ".join(text if starts == ran else f"{'/'.join(sorted(starts))}: {text}"
                     for text, starts in noted.items()).replace("|", "\\|")


def page(data: dict) -> str:
    versions = data["versions"]
    out = [HEAD.format(versions=", ".join(versions))]
    for module, title in TITLES.items():
        rows = data["tables"].get(module, {})
        if not rows:
            continue
        out.append(f"## {title}\n")
        out.append("| what happens | " + " | ".join(versions) + " | |")
        out.append("|---" * (len(versions) + 2) + "|")
        for row in rows.values():
            what = next(iter(row.values()))["title"].replace("|", "\\|")
            cells = " | ".join(cell(row.get(v)) for v in versions)
            out.append(f"| {what} | {cells} | {remarks(row)} |")
        out.append("")
    return "\n".join(out)


def main() -> int:
    paths = sys.argv[1:] or sorted(p for f in FOUND for p in glob.glob(str(ROOT / f)))
    if not paths:
        print("python-faults: error: no runs found; make test ONLY=python/test_faults",
              file=sys.stderr)
        return 1
    (ROOT / "docs/python-faults.md").write_text(page(load(paths)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
