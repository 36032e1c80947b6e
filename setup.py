# SPDX-License-Identifier: MIT
"""setup.py - the extension yoke._yoke, made by the Makefile, which is the one build description.

YOKE_EXTENSION names one that is made already; YOKE_BUILD is where all output goes.
"""
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent

if sys.platform != "linux" or struct.calcsize("P") != 8 or sys.implementation.name != "cpython":
    sys.exit("yoke: only CPython on 64 bit Linux is supported.")

from setuptools import Extension, setup  # noqa: E402 - where it cannot be built, only that is said
from setuptools.command.build_ext import build_ext  # noqa: E402


def version():
    text = (HERE / "include/yoke/base.h").read_text()
    return ".".join(re.findall(r"^#define YOKE_VERSION_[A-Z]+ (\d+)", text, re.M))


class BuildByMake(build_ext):
    """`make python-extension`, and its result put where setuptools wants it."""

    def build_extension(self, ext):
        made = os.environ.get("YOKE_EXTENSION")
        if not made:
            made = self.make()
        target = pathlib.Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, target)

    def make(self):
        build = pathlib.Path(self.build_temp).resolve()
        jobs = self.parallel or len(os.sched_getaffinity(0))
        command = ["make", f"-j{jobs}", f"BUILD={build}", f"PYTHON={sys.executable}"]
        command += ["DEPS=no", "WARN="]  # another compiler may warn of more
        try:
            subprocess.run([*command, "python-extension"], cwd=HERE, check=True)
        except FileNotFoundError:
            sys.exit("yoke: there is no `make` here, and it is needed to build yoke.")
        except subprocess.CalledProcessError:
            sys.exit("yoke: the extension could not be built; the compiler's words are above.")
        return build / "python/_yoke.so"


options = {}
if "YOKE_BUILD" in os.environ:
    base = pathlib.Path(os.environ["YOKE_BUILD"])
    base.mkdir(parents=True, exist_ok=True)
    options = {"build": {"build_base": str(base)}, "egg_info": {"egg_base": str(base)}}

setup(
    version=version(),
    options=options,
    ext_modules=[Extension("yoke._yoke", sources=[])],
    cmdclass={"build_ext": BuildByMake},
)
