#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# test_python_package.sh - the sdist is whole: elsewhere, without the repository, it is enough to
# build, install and use; what is installed is what it promises. timeout: 180
#
# Idea: make an sdist, unpack it in a folder of our own, install it from there into a new
# environment, and look at it from the root folder, where nothing of the repository is in sight.
set -eu

python=/usr/bin/python3
root=$(mktemp -d) && trap 'rm -rf "$root"' EXIT

fail() {
    echo "FAILED: $1"
    exit 1
}

make -s sdist "BUILD=$root/made" "DIST=$root" DEPS=no
mkdir "$root/src" && tar -xzf "$root"/yoke-*.tar.gz -C "$root/src" --strip-components=1

said=$(cd "$root/src" && $python -c 'import runpy, sys
sys.platform = "darwin"
runpy.run_path("setup.py")' 2>&1) && fail 'another system was not refused'
[ "$said" = 'yoke: only CPython on 64 bit Linux is supported.' ] || fail "refused with: $said"

$python -m venv --system-site-packages "$root/venv"
PATH=$root/venv/bin:$PATH
cd /
pip -q --disable-pip-version-check install --no-index --no-deps --no-build-isolation "$root/src"
rm -rf "$root/src"

version=$("$YOKE" --version)
cat >"$root/look.py" <<'END'
import importlib.metadata
import pathlib
import sys

import yoke


def square(x):
    return x * x


said = importlib.metadata.metadata("yoke")
assert "yoke " + said["Version"] == sys.argv[1], said["Version"]
assert said["License"] == "MIT" and said["Requires-Python"] == ">=3.11", said.items()
assert importlib.metadata.requires("yoke") == ["cloudpickle"]
assert yoke.__version__ == said["Version"]

here = pathlib.Path(yoke.__file__).parent
assert here.is_relative_to(sys.prefix), here
assert (here / "py.typed").exists() and (here / "__init__.pyi").exists()

with yoke.Pool(workers=2) as pool:
    assert list(pool.map(square, range(100))) == [x * x for x in range(100)]
print(next(here.glob("_yoke.*.so")))
END
so=$(python "$root/look.py" "$version") || fail "look.py: $so"
shown=$(nm -D --defined-only --format=posix "$so" | awk '{ print $1 }' | paste -sd' ')
[ "$shown" = PyInit__yoke ] || fail "the extension shows $shown"
readelf -n "$so" | grep -q 'Build ID' || fail 'the extension has no build id'
needed=$(readelf -d "$so" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -v '^libc\.so\|^ld-linux') &&
    fail "needs more than libc: $needed"

pip -q uninstall -y yoke
left=$(find "$root/venv" -ipath '*yoke*')
[ -z "$left" ] || fail "uninstall left: $left"
