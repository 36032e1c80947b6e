# SPDX-License-Identifier: MIT
"""What can be found by its name, and what a function reads that cannot."""

import _weakref
import sys
from _functools import _lru_cache_wrapper as _CachedType

from yoke._loading import ATOMS

_FunctionType = type(lambda: None)
_ModuleType = type(sys)
_BuiltinType = type(len)
_MAINS = ("__main__", "__mp_main__")


# --- by name? ------------------------------------------------------------------------------------

_findable = {}  # name of a module -> (module, whether a clean interpreter finds it)


def importable(name):
    """A clean interpreter that has our sys.path finds this module, and it is the same."""
    module = sys.modules.get(name)
    known = _findable.get(name)
    if known is not None and known[0] is module:
        return known[1]
    found = module is not None and name not in _MAINS and _finds(name, module)
    _findable[name] = (module, found)
    return found


def _finds(name, module):
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return False
    origin = getattr(spec, "origin", None)
    if origin in ("built-in", "frozen"):
        return True
    from _frozen_importlib_external import PathFinder

    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        if not importable(parent):
            return False
        path = getattr(sys.modules[parent], "__path__", None)
        if path is None:
            return True  # such as os.path: whoever imports the parent has it
    try:
        found = PathFinder.find_spec(name, path)
    except Exception:
        return False
    if found is None:
        return bool(parent) or _is_editable(name)  # a parent makes it
    return found.origin == origin


def _is_editable(name):
    """A package that is installed as a link to its sources; workers then have its finder too."""
    return any(
        (getattr(finder, "__module__", None) or "").startswith("__editable__")
        and finder.find_spec(name, None) is not None
        for finder in sys.meta_path
    )


def resolves(obj, module, qualname):
    """It is what stands under that name."""
    if module is None or qualname is None or "<" in qualname:
        return False
    found = sys.modules.get(module)
    try:
        for part in qualname.split("."):
            found = getattr(found, part)
    except AttributeError:
        return False
    return found is obj


def by_name(obj):
    """A function or class that workers find by its name."""
    module = getattr(obj, "__module__", None)
    return (
        isinstance(module, str)
        and module not in _MAINS
        and resolves(obj, module, getattr(obj, "__qualname__", None))
        and importable(module)
    )


# --- what a function reads -----------------------------------------------------------------------

_reads_cache = {}  # address of a code object -> (weak reference, names of globals, all names)
_ops = None


def _global_ops():
    global _ops
    if _ops is None:
        from opcode import opmap

        _ops = {
            opmap[name]: name == "LOAD_GLOBAL"
            for name in ("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL")
        }
        in_class = {
            opmap[name]: name == "never"
            for name in ("LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")
            if name in opmap
        }
        _ops = (_ops, {**_ops, **in_class}, opmap["EXTENDED_ARG"])
    return _ops


def _walk(code, names, words):
    in_function, in_class, extended = _global_ops()
    ops = in_function if code.co_flags & 1 else in_class  # CO_OPTIMIZED
    ops_bytes = code.co_code
    own = code.co_names
    words.update(own)
    if own:
        high = 0
        for at in range(0, len(ops_bytes), 2):
            op = ops_bytes[at]
            if op == extended:
                high = (high | ops_bytes[at + 1]) << 8
                continue
            shifted = ops.get(op)
            if shifted is not None:
                # The lowest bit of LOAD_GLOBAL says something else.
                index = (high | ops_bytes[at + 1]) >> shifted
                names[own[index]] = None
            high = 0
    for const in code.co_consts:
        if type(const) is type(code):
            _walk(const, names, words)


def reads(code):
    """The names of the globals that a code object uses, and all other names in it."""
    found = _reads_cache.get(id(code))
    if found is not None and found[0]() is code:
        return found[1], found[2]
    names, words = {}, set()
    _walk(code, names, words)
    address = id(code)
    ref = _weakref.ref(code, lambda _: _reads_cache.pop(address, None))
    _reads_cache[address] = (ref, tuple(names), words)
    return tuple(names), words


def submodules(module, words):
    """Modules below this one that the code reaches through it."""
    if not hasattr(module, "__path__"):
        return ()
    prefix = module.__name__ + "."
    return [
        name
        for name in list(sys.modules)
        if name.startswith(prefix)
        and words.issuperset(name[len(prefix):].split("."))
        and isinstance(sys.modules[name], _ModuleType)
        and importable(name)
    ]


# How surely a value will still be the same as long as it is the same object.
SAME, REFERENT, MISSING, CODE, CHANGES = 0, 1, 2, 3, 4
_STEADY = {
    ("re", "Pattern"), ("logging", "Logger"), ("logging", "RootLogger"), ("uuid", "UUID"),
    ("datetime", "datetime"), ("datetime", "date"), ("datetime", "time"), ("datetime", "timedelta"),
    ("datetime", "timezone"), ("decimal", "Decimal"), ("fractions", "Fraction"),
    ("pathlib", "PosixPath"), ("pathlib", "PurePosixPath"), ("operator", "itemgetter"),
    ("operator", "attrgetter"),
}  # fmt: skip


def steadiness(value):
    kind = type(value)
    if kind in ATOMS:
        return SAME
    if kind is tuple or kind is frozenset:
        return SAME if all(steadiness(item) == SAME for item in value) else CHANGES
    if kind is _FunctionType or issubclass(kind, type) or kind is _CachedType:
        return REFERENT
    if isinstance(value, _ModuleType):
        return SAME if importable(value.__name__) else CHANGES
    if kind is _BuiltinType:
        owner = getattr(value, "__self__", None)
        return SAME if owner is None or isinstance(owner, (_ModuleType, type)) else CHANGES
    if (kind.__module__, kind.__name__) in _STEADY or kind.__module__ == "dataclasses":
        return SAME
    enum = sys.modules.get("enum")
    if enum is not None and isinstance(value, enum.Enum):
        return SAME
    return CHANGES
